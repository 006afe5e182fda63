"""Ollama's requests and records."""

import itertools
import math

import msgspec
import pytest

from gemmad.api.errors import BadRequest, Busy, ModelNotFound
from gemmad.core import ModelName
from gemmad.dialects.ollama import models
from gemmad.dialects.ollama.replies import Clock, Reply, error_record, timestamp
from gemmad.dialects.ollama.requests import ChatBody, GenerateBody, chat_request, generate_request
from gemmad.store.manifests import Broken
from gemmad.wire import Delta, Done, Message, ToolCall
from tests.fakes.residency_fakes import STATS
from tests.fakes.store_scenes import manifest


def chat(**body):
    return chat_request(msgspec.convert({"model": "nano", **body}, ChatBody))


def generate(**body):
    return generate_request(msgspec.convert({"model": "nano", **body}, GenerateBody))


def reply(*, is_chat: bool) -> Reply:
    ids = (f"call_{n:08d}" for n in itertools.count())
    return Reply("nano", is_chat, Clock(lambda: 10**18 + 5, lambda: 900, lambda: next(ids)), 100)


DONE = Done(
    id=1, reason="stop", prompt_tokens=3, prompt_ns=0, eval_tokens=2, eval_ns=7, draft=STATS,
    context=(1, 2),
)  # fmt: skip


def test_a_prompt_becomes_messages():
    """System first, then the user; streaming unless told otherwise."""
    request = generate(prompt="hi", system="be brief")

    assert request.messages == (
        Message(role="system", content="be brief"),
        Message(role="user", content="hi"),
    )
    assert request.stream
    assert not generate(prompt="hi", stream=False).stream


def test_a_raw_prompt_stays_as_it_is():
    """No messages: the template is not used."""
    request = generate(prompt="<|turn>user", raw=True)

    assert (request.messages, request.prompt) == ((), "<|turn>user")


@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": "", "raw": True}, {"system": "x"}])
def test_without_a_prompt_it_only_loads(body):
    """And with keep_alive 0 it unloads."""
    assert generate(**body).load_only
    assert generate(**body, keep_alive=0).unload_only


@pytest.mark.parametrize("body", [{}, {"messages": []}, {"messages": None}])
def test_without_messages_it_only_loads(body):
    """As Ollama's clients expect."""
    assert chat(**body).load_only
    assert chat(**body, keep_alive="0s").unload_only


def test_a_conversation_is_read_with_its_tools():
    """Roles in lower case, calls with ids and objects, tools as they came."""
    call = {"id": "c1", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"z": 1}}}
    request = chat(
        messages=[
            {"role": "User", "content": "go"},
            {"role": "assistant", "content": None, "thinking": "hm", "tool_calls": [call]},
            {"role": "tool", "content": "3", "tool_name": "f", "tool_call_id": "c1"},
        ],
        tools=[tool],
    )

    assert request.messages[0].role == "user"
    assert request.messages[1].tool_calls[0].id == "c1"
    assert list(request.messages[1].tool_calls[0].arguments) == ["b", "a"]
    assert request.messages[2].tool_name == "f"
    assert request.tools == (tool,)


@pytest.mark.parametrize(("think", "read"), [
    (None, False), (False, False), (True, True), ("low", True), ("max", True),
])  # fmt: skip
def test_thinking_is_off_unless_asked_for(think, read):
    """As in Gemma's own template."""
    assert chat(think=think).think is read


@pytest.mark.parametrize(
    ("keep_alive", "seconds"), [(None, None), ("", None), (-1, math.inf), ("5m", 300), (0, 0)]
)
def test_keep_alive_tells_unset_from_zero(keep_alive, seconds):
    """Unset must not shorten what another client asked for."""
    assert chat(keep_alive=keep_alive).keep_alive_s == seconds


BAD_CHATS = {
    "role": {"messages": [{"role": "robot", "content": "x"}]},
    "images": {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]},
    "format": {"format": "json"},
    "logprobs": {"logprobs": True},
    "think": {"think": "very"},
    "keep_alive": {"keep_alive": "soon"},
    r"tools\[0\]": {"tools": [{"type": "function"}]},
    r"tools\[0\] is not": {"tools": [{"type": "web", "function": {"name": "x"}}]},
    "model name": {"model": "../etc"},
    "'model' is missing": {"model": ""},
    "temperature": {"options": {"temperature": "hot"}},
}
BAD_GENERATES = {
    "suffix": {"suffix": "x"},
    "template": {"template": "x"},
    "images": {"images": ["aGk="]},
    "raw": {"raw": True, "system": "x", "prompt": "p"},
    "context": {"context": [-1], "prompt": "p"},
    "format": {"format": {"type": "object"}},
}


@pytest.mark.parametrize(("named", "body"), BAD_CHATS.items())
def test_bad_chats_are_refused_naming_the_field(named, body):
    """What we do not do is said, not ignored."""
    with pytest.raises(BadRequest, match=named):
        chat(**body)


@pytest.mark.parametrize(("named", "body"), BAD_GENERATES.items())
def test_bad_prompts_are_refused_naming_the_field(named, body):
    """What we do not do is said, not ignored."""
    with pytest.raises(BadRequest, match=named):
        generate(**body)


def test_fields_that_change_nothing_are_accepted():
    """Empty and false values of unsupported fields, and fields nobody knows."""
    chat(format="", logprobs=False, top_logprobs=0, truncate=True, shift=False, unknown=1)


def test_a_final_record_has_every_figure_above_zero():
    """Ollama's clients divide by them."""
    record = reply(is_chat=False).done(DONE)

    for key in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        assert record[key] > 0
    assert record["context"] == [1, 2]
    assert record["done_reason"] == "stop"
    assert record["draft"]["per_position"] == (0.5,)


def test_a_whole_answer_holds_all_pieces():
    """Text, thinking and calls in one record."""
    answer = reply(is_chat=True)
    answer.delta(Delta(id=1, thinking="hm"))
    answer.delta(Delta(id=1, text="a"))
    answer.delta(Delta(id=1, text="b", tool_calls=(ToolCall(name="f", arguments={"x": 1}),)))
    message = answer.whole(DONE)["message"]

    assert (message["content"], message["thinking"]) == ("ab", "hm")
    assert message["tool_calls"] == [
        {"id": "call_00000000", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}
    ]


def test_generate_tells_calls_in_its_last_record_too():
    """Where Ollama's generate has them."""
    answer = reply(is_chat=False)
    answer.delta(Delta(id=1, tool_calls=(ToolCall(name="f", arguments={}, id="c"),)))

    assert answer.done(DONE)["tool_calls"][0]["id"] == "c"


def test_moments_have_nanoseconds_and_a_z():
    """RFC 3339, as Go prints it."""
    assert timestamp(1_767_225_600_000_000_007) == "2026-01-01T00:00:00.000000007Z"


def test_an_error_carries_its_fix_and_code():
    """One sentence for people, one word for programs."""
    assert error_record(ModelNotFound("model 'x' not found.", fix="Pull it.")) == {
        "error": "model 'x' not found. Pull it.",
        "code": "model_not_found",
    }
    assert error_record(Busy("full"))["code"] == "busy"


def test_tags_are_newest_first_with_broken_names_last():
    """A broken name is listed and marked."""
    old = manifest("old", {"model.safetensors": b"1"}, {"model.safetensors": b"22"})
    new = msgspec.structs.replace(manifest("new", {"f.json": b""}), created="2027-01-01T00:00:00Z")
    listed = models.tags([old, Broken(ModelName.parse("bad"), "why"), new])["models"]

    assert [entry["name"] for entry in listed] == ["new:latest", "old:latest", "bad:latest"]
    assert listed[1]["drafter"]["size"] == 2
    assert listed[2]["broken"] == "why"
    assert len(listed[0]["digest"]) == 64


def test_show_text_follows_ollamas_form():
    """Parameters in a column, the Modelfile with FROM, PARAMETER, SYSTEM and TEMPLATE."""
    made = msgspec.structs.replace(
        manifest("a", {"f.json": b""}),
        parameters={"temperature": 0.5, "stop": ["x", "y"]},
        system="be kind",
    )

    shown = models.show(made, "Apache", "{{ t }}")
    assert shown["parameters"].splitlines() == [
        f"{'stop':<30} x",
        f"{'stop':<30} y",
        f"{'temperature':<30} 0.5",
    ]
    assert "SYSTEM be kind" in shown["modelfile"]
    assert "FROM a\n" in shown["modelfile"]
