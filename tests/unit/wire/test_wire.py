"""Frames survive any chunking, and nothing else passes for a frame."""

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad import wire

TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=12)
NUMBERS = st.integers(-(2**53), 2**53)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
CALLS = st.lists(
    st.builds(wire.ToolCall, name=TEXT, arguments=OBJECTS, id=st.none() | TEXT), max_size=2
).map(tuple)
MESSAGES = st.builds(
    wire.Message,
    role=TEXT,
    content=TEXT,
    thinking=st.none() | TEXT,
    tool_calls=CALLS,
    tool_name=st.none() | TEXT,
    tool_call_id=st.none() | TEXT,
)
SAMPLINGS = st.builds(
    wire.Sampling,
    temperature=FLOATS,
    top_k=NUMBERS,
    seed=st.none() | NUMBERS,
    stop=st.lists(TEXT, max_size=2).map(tuple),
)
FILES = st.dictionaries(TEXT, TEXT, max_size=3)
LOADS = st.builds(
    wire.Load,
    files=st.builds(wire.PairFiles, target=FILES, drafter=st.none() | FILES),
    num_ctx=NUMBERS,
    device=TEXT,
    depth_state=st.none() | OBJECTS,
    drafter=st.booleans(),
    split=st.lists(st.tuples(TEXT, NUMBERS), max_size=2).map(tuple),
    why=TEXT,
)
GENERATES = st.builds(
    wire.Generate,
    id=NUMBERS,
    messages=st.lists(MESSAGES, max_size=2).map(tuple),
    prompt=st.none() | TEXT,
    context=st.lists(NUMBERS, max_size=3).map(tuple),
    tools=st.lists(OBJECTS, max_size=2).map(tuple),
    think=st.booleans(),
    sampling=SAMPLINGS,
    draft=st.sampled_from(("auto", "off")) | NUMBERS,
)
TO_RUNNER = (
    LOADS
    | GENERATES
    | st.builds(wire.Cancel, id=NUMBERS)
    | st.builds(wire.Ping, n=NUMBERS)
    | st.builds(wire.Reclaim, nbytes=NUMBERS)
    | st.sampled_from(
        [wire.Prepare(), wire.Detach(), wire.Attach(), wire.Measure(), wire.Shutdown()]
    )
)
STATS = st.builds(
    wire.DraftStats,
    depth=NUMBERS,
    rounds=NUMBERS,
    drafted=NUMBERS,
    accepted=NUMBERS,
    per_position=st.lists(FLOATS, max_size=3).map(tuple),
    tokens_per_round=FLOATS,
)
PARTS = {
    "devices": st.lists(st.builds(wire.DeviceTaken, TEXT, NUMBERS, NUMBERS), max_size=2).map(tuple)
}
FROM_RUNNER = (
    st.builds(wire.Hello, pid=NUMBERS)
    | st.builds(wire.Progress, phase=TEXT, done=NUMBERS, total=NUMBERS)
    | st.builds(wire.LoadFailed, code=TEXT, message=TEXT, fix=st.none() | TEXT)
    | st.builds(wire.Delta, id=NUMBERS, text=TEXT, thinking=TEXT, tool_calls=CALLS)
    | st.builds(wire.RequestRefused, id=NUMBERS, code=TEXT, message=TEXT)
    | st.builds(wire.Pong, n=NUMBERS)
    | st.builds(wire.Reclaimed, nbytes=NUMBERS)
    | st.builds(wire.Detached, nbytes=NUMBERS)
    | st.builds(wire.Attached, drafter_bytes=NUMBERS)
    | st.builds(wire.AttachFailed, code=TEXT, message=TEXT, fix=st.none() | TEXT)
    | st.builds(wire.Measured, **(dict.fromkeys(wire.Measured.__struct_fields__, NUMBERS) | PARTS))
    | st.builds(
        wire.Loaded,
        **dict.fromkeys(("target_bytes", "drafter_bytes", "kv_bytes", "num_ctx"), NUMBERS),
        device=TEXT,
        dtype=TEXT,
        load_ns=NUMBERS,
        drafter=st.booleans(),
        placement=st.lists(st.builds(wire.Placed, TEXT, TEXT, NUMBERS, TEXT), max_size=2).map(
            tuple
        ),
        peak_bytes=NUMBERS,
    )
    | st.just(wire.Prepared())
    | st.builds(
        wire.Done,
        id=NUMBERS,
        reason=TEXT,
        prompt_tokens=NUMBERS,
        prompt_ns=NUMBERS,
        eval_tokens=NUMBERS,
        eval_ns=NUMBERS,
        draft=STATS,
        context=st.lists(NUMBERS, max_size=3).map(tuple),
        depth_state=st.none() | OBJECTS,
    )
)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Frame bodies of a stream that arrives in pieces."""
    splitter = wire.FrameSplitter()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [body for a, b in itertools.pairwise(edges) for body in splitter.feed(stream[a:b])]


@settings(max_examples=60, deadline=None)
@given(messages=st.lists(TO_RUNNER, max_size=3), cuts=st.lists(st.integers(0), max_size=6))
def test_what_the_daemon_says_arrives(messages: list[wire.ToRunner], cuts: list[int]) -> None:
    """Every message comes out as it went in, wherever the bytes are cut."""
    stream = b"".join(map(wire.encode, messages))

    assert [wire.decode_to_runner(body) for body in split(stream, cuts)] == messages


@settings(max_examples=60, deadline=None)
@given(messages=st.lists(FROM_RUNNER, max_size=3), cuts=st.lists(st.integers(0), max_size=6))
def test_what_the_runner_says_arrives(messages: list[wire.FromRunner], cuts: list[int]) -> None:
    """The same in the other direction."""
    stream = b"".join(map(wire.encode, messages))

    assert [wire.decode_from_runner(body) for body in split(stream, cuts)] == messages


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=40) | JSON.map(lambda value: repr(value).encode()))
def test_other_bytes_are_a_wire_error(body: bytes) -> None:
    """Bytes that are no message raise WireError and nothing else."""
    for decode in (wire.decode_to_runner, wire.decode_from_runner):
        with pytest.raises(wire.WireError):
            decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"type": "no such"}',
        b'{"type": "cancel"}',
        b'{"type": "cancel", "id": "1"}',
        b'{"type": "generate", "id": 1, "draft": "sometimes"}',
        b'{"type": "generate", "id": 1, "messages": [{"content": "no role"}]}',
        b"[" * 100_000,
    ],
)
def test_ill_typed_messages_are_wire_errors(body: bytes) -> None:
    """A message is checked once, where it comes in."""
    with pytest.raises(wire.WireError):
        wire.decode_to_runner(body)


def test_unknown_fields_are_ignored() -> None:
    """A newer peer may say more."""
    assert wire.decode_to_runner(b'{"type": "ping", "n": 1, "new": []}') == wire.Ping(n=1)


@given(length=st.integers(wire.MAX_FRAME_BYTES + 1, 2**32 - 1))
def test_an_oversized_frame_is_refused_by_its_header(length: int) -> None:
    """Nothing is buffered for a frame that may not be."""
    with pytest.raises(wire.WireError, match="over the limit"):
        wire.FrameSplitter().feed(struct.pack(">I", length))


def test_an_oversized_message_is_refused_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender learns of it, not the peer."""
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 100)

    with pytest.raises(wire.WireError, match="over the limit of 100"):
        wire.encode(wire.Delta(id=1, text="x" * 100))
