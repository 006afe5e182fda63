"""Slash commands are recognised, and /set changes the session or says what it could."""

import pytest

from gemmacli.records import Answer
from gemmacli.repl import read_message
from gemmacli.session import Session
from gemmacli.slash import COMMANDS, HELP, Slash, apply_set, parse
from gemmad.api.errors import BadRequest


@pytest.fixture
def session() -> Session:
    return Session("nano")


def test_a_command_is_split_from_the_rest() -> None:
    """Spaces around do not matter."""
    assert parse("  /set   system Be brief. ") == Slash("/set", "system Be brief.")
    assert parse("/bye") == Slash("/bye", "")


@pytest.mark.parametrize("message", ["hello", "", "/etc/hosts is a file", "what is /set?"])
def test_a_message_is_not_a_command(message: str) -> None:
    """Paths, and commands within a sentence, go to the model."""
    assert parse(message) is None


def test_an_unknown_command_says_what_exists() -> None:
    """All of them."""
    with pytest.raises(BadRequest) as caught:
        parse("/quit")

    assert all(name in str(caught.value) for name in COMMANDS)


def test_help_names_every_command() -> None:
    """None is secret."""
    assert all(name in HELP for name in COMMANDS)


def test_set_changes_the_session(session: Session) -> None:
    """Every setting, in one conversation."""
    for line in (
        "parameter temperature 0",
        "parameter stop END",
        "system Be brief. Please.",
        "think",
        "draft 4",
        "verbose",
        "nohistory",
        "nowordwrap",
    ):
        apply_set(line, session)

    settings = session.settings
    assert settings.options == {"temperature": 0.0, "stop": ["END"]}
    assert (settings.system, settings.think, settings.draft) == ("Be brief. Please.", True, 4)
    assert (session.verbose, session.history, session.word_wrap) == (True, False, False)


@pytest.mark.parametrize(
    "line",
    ["", "colour red", "system", "draft deep", "parameter seed", "parameter seed x", "think x"],
)
def test_a_wrong_set_changes_nothing(session: Session, line: str) -> None:
    """It is refused with a sentence."""
    with pytest.raises(BadRequest):
        apply_set(line, session)

    assert session == Session("nano")


def test_the_conversation_is_sent_with_each_message(session: Session) -> None:
    """Turns are kept in order; /clear and another model begin anew."""
    session.remember("one", Answer("eins", "", {"done": True}, 0.1))
    contents = [message["content"] for message in session.request("two")["messages"]]

    assert contents == ["one", "eins", "two"]
    session.switch("other")
    assert len(session.request("three")["messages"]) == 1


def test_an_answer_of_which_nothing_came_is_not_remembered(session: Session) -> None:
    """A broken-off turn without text would leave two user messages in a row."""
    session.remember("one", Answer("", "", None, None))

    assert session.messages == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello"], "hello"),
        (['"""one', "", 'two"""'], "one\n\ntwo"),
        (['"""all in one"""'], "all in one"),
        (['/set system """Be', 'brief."""'], "/set system Be\nbrief."),
    ],
)
def test_triple_quotes_join_lines(lines: list[str], message: str) -> None:
    """Also within /set system."""
    given = iter(lines)

    assert read_message(lambda _: next(given)) == message
