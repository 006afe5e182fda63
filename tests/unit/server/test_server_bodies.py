"""Bodies: strict JSON within bounds."""

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.api.errors import BadRequest
from gemmad.dialects.ollama.requests import ChatBody, GenerateBody
from gemmad.server.bodies import decode


@pytest.mark.parametrize("body", [
    b"", b"   ", b"{", b"[]", b'"x"', b"null", b'{"model": NaN}',
    b'{"options": {"seed": Infinity}}',
    b'{"model": "a", "model": "b"}', b'{"options": {"seed": 1, "seed": 2}}', b'{"model": "\xff"}',
    b'{"model": "\\ud800"}', b'{"model": 1}', b'{"stream": "yes"}', b'{"prompt": 1}',
    b'{"options": []}', b'{"context": ["a"]}', b'{"keep_alive": {}}', b'{"keep_alive": true}',
    b'{"options": {"temperature": 1e400}}', b"\x00" * 100, b'{"a":1}{"b":2}', b"\xef\xbb\xbf{}",
    b'{"options": {"a":' * 100_000, b'{"options":' + b"[" * 100_000,
])  # fmt: skip
def test_bad_bodies_are_bad_requests(body):
    """Malformed, mistyped, ambiguous, bottomless: one sentence, no other exception."""
    with pytest.raises(BadRequest) as caught:
        decode(body, GenerateBody)
    assert len(str(caught.value)) < 400


def test_a_type_error_names_the_field():
    """So that the caller finds it."""
    with pytest.raises(BadRequest, match=r"messages\[1\]\.role"):
        decode(b'{"messages": [{"role": "user"}, {"role": 5}]}', ChatBody)


def test_good_bodies_are_read():
    """Big numbers, any language, unknown fields."""
    body = decode('{"model": "nano", "prompt": "grüße 👋", "x": [1e5]}'.encode(), GenerateBody)

    assert body.prompt == "grüße 👋"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)
FIELDS = st.sampled_from([*GenerateBody.__struct_fields__, "junk"])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(FIELDS, JSON, max_size=6))
def test_random_json_is_read_or_refused(value):
    """Never another exception."""
    with suppress(BadRequest):
        decode(msgspec.json.encode(value), GenerateBody)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64))
def test_random_bytes_are_read_or_refused(data):
    """Never another exception."""
    with suppress(BadRequest):
        decode(data, ChatBody)
