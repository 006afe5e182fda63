"""nano's chat template writes Gemma 4's format, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "modelfiles/gemmamodelfiles/nano/target/chat_template.jinja"
GOLDEN = json.loads((Path(__file__).parent / "golden/chat_template.json").read_text("utf-8"))


def refuse(message: str) -> None:
    """Raise as the template asks."""
    raise ValueError(message)


@pytest.fixture(scope="module")
def template() -> Template:
    """The template in the environment in which chat templates are rendered."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    return environment.from_string(TEMPLATE.read_text("utf-8"))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_template_writes_what_the_canonical_one_writes(
    template: Template, case: dict[str, Any]
) -> None:
    """The rendering equals the stored one of Google's canonical template."""
    given = {key: value for key, value in case.items() if key not in ("name", "expected")}

    assert case["expected"] == template.render(bos_token="<bos>", **given)


def test_golden_table_is_large_enough() -> None:
    """The table keeps at least forty conversations."""
    assert len(GOLDEN["cases"]) >= 40


def test_template_refuses_arguments_given_as_text(template: Template) -> None:
    """Arguments must have been parsed; text would be quoted wrongly."""
    call = {"function": {"name": "now", "arguments": '{"a": 1}'}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]

    with pytest.raises(ValueError, match="must be a JSON object"):
        template.render(bos_token="<bos>", messages=messages)


def test_template_accepts_mappings_as_tool_results(template: Template) -> None:
    """A role-tool message may carry a mapping, rendered key by key."""
    messages = [
        {"role": "assistant", "tool_calls": [{"function": {"name": "now", "arguments": {}}}]},
        {"role": "tool", "name": "now", "content": {"hour": 9, "day": "Monday"}},
    ]

    text = template.render(bos_token="<bos>", messages=messages)

    assert text.endswith('response:now{day:<|"|>Monday<|"|>,hour:9}<tool_response|>')
