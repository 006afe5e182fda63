"""Gemma 4's stream, cut anywhere, into text, thoughts and calls."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.wire import ToolCall
from gemmarunner.parse import CALL_CLOSE, CALL_OPEN, Parsed, StreamParser

Q = '<|"|>'
WEATHER = {
    "type": "function",
    "function": {
        "name": "write",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "content": {"type": "string"}},
        },
    },
}


def parse(*pieces: str, prompt: str = "", tools: Sequence[Mapping[str, object]] = ()) -> Parsed:
    """All that the pieces give together."""
    parser = StreamParser(tools)
    parser.start_inside(prompt)
    parts = [parser.feed(piece) for piece in pieces] + [parser.close()]
    return Parsed(
        "".join(p.text for p in parts),
        "".join(p.thinking for p in parts),
        tuple(call for p in parts for call in p.tool_calls),
    )


def call(name: str, **arguments: Any) -> ToolCall:
    """A call as it is expected."""
    return ToolCall(name=name, arguments=arguments)


def written(value: Any) -> str:
    """A value as the model writes it inside a call."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return f"{Q}{value}{Q}"
        case dict():
            return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(written, value)) + "]"
    return repr(value)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ("Hello.", Parsed("Hello.")),
        (" two\n\nlines \n", Parsed(" two\n\nlines \n")),
        ("<|channel>thought\nhm\n<channel|>Yes.", Parsed("Yes.", "hm")),
        ("<|channel>thought\n<channel|>Yes.", Parsed("Yes.")),
        ("<|channel>thought<channel|>Yes.", Parsed("Yes.")),
        ("A <|channel>thought\nhm<channel|> B", Parsed("AB", "hm")),
        ("<|channel>analysis\nhm<channel|>B", Parsed("B", "analysis\nhm")),
        ("<|channel>thought\nnever closed ", Parsed("", "never closed")),
        ("<|channel>thou", Parsed()),
        ("a < b and <|b> c <", Parsed("a < b and <|b> c <")),
        ("Yes.<channel|> More.", Parsed("Yes.More.")),
        ("<|tool_call>call:f{}<tool_call|>", Parsed("", "", (call("f"),))),
        ("Wait. <|tool_call>call:f{a:1}<tool_call|>", Parsed("Wait.", "", (call("f", a=1),))),
        (
            "<|tool_call>call:f{}<tool_call|>\n<tool_call|><|tool_response>",
            Parsed("", "", (call("f"),)),
        ),
        (
            "<|tool_call>call:f{}<tool_call|><|tool_call>call:g{}<tool_call|> Done.",
            Parsed("Done.", "", (call("f"), call("g"))),
        ),
        (
            "<|tool_call>call:f{}<|tool_call>call:g{}<tool_call|>",
            Parsed("", "", (call("f"), call("g"))),
        ),
        (
            "<|channel>thought\nhm<|tool_call>call:f{}<tool_call|>",
            Parsed("", "hm", (call("f"),)),
        ),
        ("<|tool_call>call:f{a:1}", Parsed("", "", (call("f", a=1),))),
        ("<|tool_call>no call<tool_call|>!", Parsed("<|tool_call>no call<tool_call|>!")),
        ("<|tool_call>call:f{a", Parsed("<|tool_call>call:f{a")),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_stream_is_split_into_its_parts(stream: str, expected: Parsed, size: int) -> None:
    """Each part goes where it belongs, whether it comes by letters or at once."""
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]

    assert expected == parse(*pieces)


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        (f"{{a:{Q}x, {{y}}: 'z'{Q},b:2}}", {"a": "x, {y}: 'z'", "b": 2}),
        (f"{{x-y.z:{Q}1{Q}}}", {"x-y.z": "1"}),
        (f'{{{Q}a b{Q}:1,"c":2}}', {"a b": 1, "c": 2}),
        (
            "{n:-3,f:2.5,e:1e-07,t:true,u:null}",
            {"n": -3, "f": 2.5, "e": 1e-07, "t": True, "u": None},
        ),
        (f"{{o:{{l:[1,[{Q}a{Q}],{{}}]}},e:[]}}", {"o": {"l": [1, ["a"], {}]}, "e": []}),
        ('{a:"q\\"\\n"}', {"a": 'q"\n'}),
        ('{a:"\\ud800"}', {"a": "\ufffd"}),
        ("{ a : 1 , b : [ 2 ] }", {"a": 1, "b": [2]}),
        ("{a:'x y',b:['z']}", {"a": "x y", "b": ["z"]}),
        (f"{{a:{Q}x}}", {"a": "x"}),
        (f"{{a:[{Q}x]}}", {"a": ["x"]}),
        (f"{{a:{Q}x{Q}", {"a": "x"}),
        (f"{{a:{{b:[1,{Q}x{Q}", {"a": {"b": [1, "x"]}}),
        ("{unit:celsius,city:New York}", {"unit": "celsius", "city": "New York"}),
        ("{path:a.txt,content:if (x) { y, z }}", {"path": "a.txt", "content": "if (x) { y, z }"}),
        ("{n:007}", {"n": "007"}),
        ("{n:1e999}", None),
        ("{a:1}}", None),
        ("{:1}", None),
        ("{a:" + "[" * 5000, None),
        ("{a:" + "9" * 5000 + "}", None),
    ],
)
def test_arguments_are_read_or_repaired(body: str, arguments: dict[str, Any] | None) -> None:
    """Well-formed and repairable calls give typed arguments; the others come back as text."""
    parsed = parse(f"<|tool_call>call:write{body}<tool_call|>", tools=[WEATHER])

    if arguments is None:
        assert Parsed(f"<|tool_call>call:write{body}<tool_call|>") == parsed
    else:
        assert (ToolCall(name="write", arguments=arguments),) == parsed.tool_calls


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<|turn>model\n", Parsed("ab")),
        ("<|turn>model\n<|channel>thought\n<channel|>", Parsed("ab")),
        ("<|channel>thought\n", Parsed("b", "a")),
        ("<|channel>thought\nwell, ", Parsed("b", "a")),
        ("<|channel>tho", Parsed("b", "a")),
        ("<|channel>", Parsed("b", "a")),
    ],
)
def test_answer_starts_where_the_prompt_ended(prompt: str, expected: Parsed) -> None:
    """A channel left open by the prompt is open at the first token; its text is not repeated."""
    first = "ught\na" if prompt.endswith("tho") else "a"

    assert expected == parse(first, "\n<channel|>b", prompt=prompt)


TAGGED = st.lists(
    st.sampled_from(
        (
            *("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>"),
            *("thought", "thought\n", "call:f{", "a:", "}", "{", "[", "]", ",", "1", "true", "'x'"),
            *('"', "\\", "<|", "|>", "<", ">", "\n", Q, " ", "", "word ", "é"),
        )
    ),
    max_size=40,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(stream=TAGGED | st.text(max_size=60), data=st.data())
def test_chunking_does_not_matter(stream: str, data: st.DataObject) -> None:
    """Any cuts of the same stream give the same parts, and no input raises."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]

    assert parse(stream) == parse(*pieces)


def test_text_after_a_call_is_text_however_it_is_cut() -> None:
    """A closing tag behind it closes nothing, and is shown."""
    stream = f"{CALL_OPEN}{CALL_CLOSE}thought{CALL_CLOSE}"

    assert {parse(stream), parse(stream[:25], stream[25:]), parse(*stream)} == {Parsed(stream)}


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_characters="<", codec="utf-8")))
def test_text_without_tags_is_untouched(text: str) -> None:
    """Plain text arrives letter for letter."""
    assert Parsed(text) == parse(*text)


KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,8}", fullmatch=True)
STRINGS = st.text(alphabet=st.characters(codec="utf-8"), max_size=12).filter(lambda s: "<" not in s)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(name=KEYS, arguments=st.dictionaries(KEYS, VALUES, max_size=4))
def test_calls_come_back_as_they_were_written(name: str, arguments: dict[str, Any]) -> None:
    """Writing a call and reading it gives the same name and the same typed arguments."""
    stream = f"<|tool_call>call:{name}{written(arguments)}<tool_call|><|tool_response>"

    parsed = parse(*stream)

    assert Parsed("", "", (ToolCall(name=name, arguments=arguments),)) == parsed
