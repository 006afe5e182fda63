"""Ollama's own Python client with the real daemon, a real runner and the built-in pair."""

import ollama
import pytest

pytestmark = pytest.mark.timeout(240)

QUESTION = "How do I pull a model?"
GREEDY = {"temperature": 0, "num_predict": 120}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture
def client(nano):
    with ollama.Client(nano.url) as connected:
        yield connected


def asked(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def test_nano_is_listed_and_shown(client):
    """With the figures of its files and what its template can do."""
    (model,) = client.list().models
    shown = client.show("nano")

    assert (model.model, model.details.family) == ("nano:latest", "gemma4")
    assert model.size > 1_000_000
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo["general.architecture"] == "gemma4"


def test_generate_answers_with_figures(client):
    """The answer stops by itself, and each duration and count is above zero."""
    whole = client.generate("nano", QUESTION, options=GREEDY)

    assert "gemma pull" in whole.response
    assert whole.done_reason == "stop"
    assert whole.prompt_eval_count > 0
    assert whole.eval_count > 0
    assert whole.total_duration > whole.prompt_eval_duration + whole.eval_duration > 0


def test_chat_streams_the_answer_of_the_whole_chat(client):
    """In pieces which, joined, are the answer that is not streamed."""
    whole = client.chat("nano", asked(QUESTION), options=GREEDY)
    pieces = list(client.chat("nano", asked(QUESTION), options=GREEDY, stream=True))

    assert len(pieces) > 2
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert pieces[-1].done_reason == "stop"


def test_a_name_is_remembered_over_turns(client):
    """The conversation so far reaches the model through its template."""
    told = asked("My name is Anna.")
    reply = client.chat("nano", told, options=GREEDY).message
    again = client.chat("nano", [*told, reply, *asked("What is my name?")], options=GREEDY)

    assert "Anna" in again.message.content


def test_a_tool_call_comes_back_parsed(client):
    """Name and arguments as the tool declares them, and no control token in the text."""
    question = asked("What is the weather in Paris?")
    message = client.chat("nano", question, tools=[WEATHER], options=GREEDY).message
    (call,) = message.tool_calls

    assert call.function.name == "get_weather"
    assert call.function.arguments == {"city": "Paris"}
    assert "<|" not in (message.content or "")


def test_a_tools_result_is_used(client):
    """Call and result go back in; the answer holds the result."""
    question = asked("What is the weather in Paris?")
    message = client.chat("nano", question, tools=[WEATHER], options=GREEDY).message
    result = {"role": "tool", "tool_name": "get_weather", "content": '{"temperature": 31}'}
    answer = client.chat("nano", [*question, message, result], tools=[WEATHER], options=GREEDY)

    assert "31" in answer.message.content


def test_thinking_is_apart_from_the_answer(client):
    """On: both are there. Off: no thought, and no tag anywhere."""
    on = client.chat("nano", asked(QUESTION), think=True, options=GREEDY).message
    off = client.chat("nano", asked(QUESTION), think=False, options=GREEDY).message

    assert on.thinking
    assert on.content
    assert not off.thinking
    assert not [text for text in (on.thinking, on.content, off.content) if "channel" in text]


def test_delete_takes_the_pair_out_of_store_and_memory(client):
    """After it nothing is listed, loaded, or answered."""
    client.delete("nano")

    assert client.list().models == []
    assert client.ps().models == []
    with pytest.raises(ollama.ResponseError, match="gemma pull nano"):
        client.chat("nano", asked(QUESTION))
