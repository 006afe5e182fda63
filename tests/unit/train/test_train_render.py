"""The renderer used for training writes what the chat template writes."""

from pathlib import Path
from random import Random

import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from train.conversation import MODEL_WEIGHT, PROMPT_WEIGHT, Dialogue
from train.grammar.mix import dialogue
from train.render import prompt, render

TEMPLATE = Path(__file__).parents[3] / "modelfiles/gemmamodelfiles/nano/target/chat_template.jinja"
ROSA = {"role": "user", "content": "My name is Rosa."}


@pytest.fixture(scope="module")
def template() -> Template:
    """The chat template, compiled."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text("utf-8"))


def templated(template: Template, made: Dialogue, generate: bool) -> str:
    """Return the template's rendering of a dialogue."""
    return template.render(
        bos_token="<bos>",
        messages=made.messages,
        tools=made.tools,
        enable_thinking=made.think,
        add_generation_prompt=generate,
    )


def test_renderer_equals_template_on_200_samples(template: Template) -> None:
    """Text learnt in training is the text the model sees in use."""
    made = [dialogue(Random(seed)) for seed in range(200)]

    assert [templated(template, m, False) for m in made] == [render(m).text for m in made]


def test_prompt_equals_template_up_to_the_answer(template: Template) -> None:
    """The prompt of an item ends where the model starts, after a tool's result too."""
    for seed in range(100):
        made = dialogue(Random(seed))
        cut = Dialogue(made.messages[:-1], made.tools, made.think)

        assert templated(template, cut, True) == prompt(cut)


def test_model_turns_weigh_one_and_prompts_a_tenth() -> None:
    """The answer and its `<turn|>` carry full weight, everything else a tenth."""
    made = Dialogue([ROSA, {"role": "assistant", "content": "Noted."}], [], False)

    segments = render(made).segments

    assert [(s.text, s.weight) for s in segments if s.weight == MODEL_WEIGHT] == [
        ("Noted.<turn|>", MODEL_WEIGHT)
    ]
    assert {s.weight for s in segments} == {MODEL_WEIGHT, PROMPT_WEIGHT}


def test_stripped_turns_of_a_thinking_dialogue_weigh_nothing() -> None:
    """An earlier answer, shown without its thought, must not teach to skip thinking."""
    answer = {"role": "assistant", "content": "Noted.", "reasoning": "They say Rosa."}
    made = Dialogue([ROSA, answer, ROSA, answer], [], True)

    weights = [s.weight for s in render(made).segments if "Noted." in s.text]

    assert weights == [0.0, MODEL_WEIGHT]
