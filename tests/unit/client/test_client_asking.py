"""Wishes become requests, and a wish that means nothing is refused with what is possible."""

import pytest

from gemmacli.asking import Settings, draft_mode, keep_alive, output_format, parameter
from gemmad.api.errors import BadRequest


def test_a_request_says_only_what_was_wished() -> None:
    """The model's own defaults hold for the rest."""
    assert Settings().generate("nano", "hi") == {"model": "nano", "prompt": "hi"}


def test_every_wish_is_in_the_request() -> None:
    """Also those whose value is false or zero."""
    settings = Settings({"seed": 1}, "be brief", False, 0, 0, "json", True)

    assert settings.generate("nano", "hi") == {
        "model": "nano",
        "prompt": "hi",
        "options": {"seed": 1},
        "system": "be brief",
        "think": False,
        "draft": 0,
        "keep_alive": 0,
        "format": "json",
        "raw": True,
    }


def test_the_system_message_leads_a_conversation() -> None:
    """It is a setting, so it is not part of the messages kept."""
    messages = [{"role": "user", "content": "hi"}]
    request = Settings(system="be brief").chat("nano", messages)

    assert request["messages"] == [{"role": "system", "content": "be brief"}, *messages]
    assert len(messages) == 1


def test_parameters_have_their_types() -> None:
    """What was typed becomes what the daemon takes."""
    assert parameter("temperature", "0.5") == 0.5
    assert parameter("top_k", "40") == 40
    assert parameter("stop", "END") == "END"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("temprature", "1", "temperature"), ("top_k", "many", "a whole number")],
)
def test_a_wrong_parameter_is_refused(name: str, text: str, says: str) -> None:
    """The sentence names what would do."""
    with pytest.raises(BadRequest, match=says):
        parameter(name, text)


def test_draft_mode_is_auto_off_or_a_depth() -> None:
    """Nothing else is a depth."""
    assert [draft_mode(text) for text in ("auto", "off", "0", "4")] == ["auto", "off", 0, 4]
    with pytest.raises(BadRequest, match="-1"):
        draft_mode("-1")


def test_keep_alive_and_format_keep_their_kinds() -> None:
    """Numbers are seconds, other text is the daemon's; a schema is an object."""
    assert [keep_alive(text) for text in ("-1", "30", "5m")] == [-1, 30, "5m"]
    assert output_format('{"type": "object"}') == {"type": "object"}
    with pytest.raises(BadRequest, match="not JSON"):
        output_format("{type")
