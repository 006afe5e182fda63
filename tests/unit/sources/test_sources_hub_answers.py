"""Whatever a hub says of a repository, it is understood or refused in words; nothing else."""

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.api.errors import PullFailed
from gemmad.sources.hub_answers import (
    HubFile,
    lacks_facts,
    read_listing,
    read_search,
    read_tree,
)

SHA, HASH, BLOB = "a" * 40, "b" * 64, "c" * 40
BIG = 4 << 20  # what the client reads of an answer


def sibling(name: Any = "config.json", **facts: Any) -> dict[str, Any]:
    """One file of a sound listing, but for what is given."""
    return {"rfilename": name, "size": 10, "blobId": BLOB, **facts}


def large(**facts: Any) -> dict[str, Any]:
    """A large file of a sound listing, but for what is given."""
    return sibling("model.safetensors", lfs={"sha256": HASH, "size": 10, **facts})


def listing(*siblings: Any, **facts: Any) -> bytes:
    """A sound listing of these, but for what is given."""
    return json.dumps({"sha": SHA, "siblings": siblings or [sibling()], **facts}).encode()


NAMES = [
    *("../config.json", "..", ".", "a/../../config.json", "a/..", "./config.json", "a/./b"),
    *("/etc/passwd", "//config.json", "a//b", "/", "", "a/", "C:\\config.json", "a\\..\\b"),
    *("config.json\x00", "a\nb", "a\rb", "\x1b[2J", "\x7f", "x" * 1025, "a/" * 600 + "b"),
]
WRONG = [None, True, 1, 1.5, [], {}, "x"]
HOSTILE = [
    *(listing(sibling(name)) for name in NAMES),
    *(listing(sibling(value)) for value in (None, 1, True, [], {})),
    *(listing(sibling(size=size)) for size in (-1, -(1 << 63), (1 << 62) + 1, 10**30, 1.5, "10")),
    *(listing(sibling(size=size)) for size in ([], {}, True, float("inf"), float("nan"))),
    *(listing(sibling(blobId=value)) for value in (1, [], {}, True)),
    *(listing(sibling(lfs=value)) for value in (1, [], "x", True, {})),
    *(listing(large(sha256=value)) for value in ("", "b" * 63, "B" * 64, "../" * 21, 1, [], None)),
    *(listing(large(size=value)) for value in (-1, None, "10", 1 << 63, 10**40)),
    *(listing(sha=value) for value in (*WRONG, "", "main", "a" * 39, "g" * 40, "../" * 13 + "a")),
    *(listing(siblings=value) for value in (1, "x", {}, [1], [[]], ["config.json"], [None])),
    *(listing(cardData=value) for value in (1, "x", [], True)),
    *(json.dumps(value).encode() for value in WRONG),
    listing(sibling(), sibling()),
    listing(large(), large()),
    *(b"", b"{", b"\xff\xfe", b"<html>Log in</html>", b"NaN", b"\x00" * 100, b"{}{}"),
    b'{"sha":"' + SHA.encode() + b'","siblings":[' + b"[" * 100_000,
    b"[" * BIG,
    b'{"a":' * 500_000,
    b'"' + b"x" * BIG + b'"',
    b'{"sha":"\\ud800"}',
    listing(sibling("\ud800")),
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_listing_is_refused_in_words_and_at_once(data: bytes) -> None:
    """A PullFailed that names the repository, in bounded time, and short."""
    began = time.monotonic()
    with pytest.raises(PullFailed, match="What the hub says of o/r cannot be right") as error:
        read_listing("o/r", data)

    assert time.monotonic() - began < 1
    assert len(str(error.value)) < 600
    assert error.value.fix


def test_the_corpus_is_large() -> None:
    """Sixty at least."""
    assert len(HOSTILE) >= 60


@pytest.mark.slow  # tracing memory takes seconds
def test_as_many_files_as_an_answer_can_hold_cost_little() -> None:
    """What a hub can make us remember is bounded by what we read of its answer."""
    many = b",".join(b'{"rfilename":"%x"}' % number for number in range(180_000))
    data = b'{"sha":"' + SHA.encode() + b'","siblings":[' + many + b"]}"
    assert BIG * 0.9 < len(data) <= BIG
    tracemalloc.start()
    began = time.monotonic()
    found = read_listing("o/r", data)
    took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(found.files) == 180_000
    assert (took < 10, peak < 256 << 20) == (True, True)


def test_what_other_hubs_leave_out_or_add_is_fine() -> None:
    """No card, no siblings, fields of tomorrow, names of other languages, letters that differ."""
    assert read_listing("o/r", json.dumps({"sha": SHA}).encode()).files == {}
    plain = listing(sibling("README.md"), sibling("readme.md"), sibling("日本 語.md"), new=[{}])
    card = listing(cardData={"license": "gemma", "base_model": ["g/a", 7, "../x", "g/b"]})

    assert set(read_listing("o/r", plain).files) == {"README.md", "readme.md", "日本 語.md"}
    assert read_listing("o/r", card).licence == "gemma"
    assert read_listing("o/r", card).base_models == ("g/a", "g/b")
    assert read_listing("o/r", listing(large())).files["model.safetensors"].sha256 == HASH


def test_a_listing_of_names_alone_is_told_from_one_with_facts() -> None:
    """Mirrors do not ask the hub for sizes and hashes; a tree has them."""
    assert lacks_facts(read_listing("o/r", listing({"rfilename": "a"})))
    assert not lacks_facts(read_listing("o/r", listing()))
    entry = {"type": "file", "path": "a", "size": 3, "oid": BLOB}
    weights = entry | {"path": "b", "lfs": {"oid": HASH, "size": 9, "pointerSize": 1}}
    folder = {"type": "directory", "path": "d", "oid": BLOB}

    assert read_tree("o/r", json.dumps([entry, weights, folder]).encode()) == [
        HubFile("a", 3, BLOB, None),
        HubFile("b", 9, BLOB, HASH),
    ]
    with pytest.raises(PullFailed):
        read_tree("o/r", json.dumps({"error": "no"}).encode())


def test_a_search_knows_what_safetensors_take() -> None:
    """By the types of its numbers; a type or a repository that is strange is passed over."""
    found = read_search(
        json.dumps(
            [
                {"id": "g/a", "safetensors": {"parameters": {"BF16": 10, "F32": 1}, "total": 11}},
                {"id": "g/b", "safetensors": {"parameters": {"X9": 10}}},
                {"id": "g/c"},
                {"id": "../../c"},
                {"id": "alone"},
            ]
        ).encode()
    )

    assert [(one.repository, one.weight_bytes) for one in found] == [
        ("g/a", 24),
        ("g/b", None),
        ("g/c", None),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["sha", "siblings", "rfilename", "size", "lfs", "blobId", "cardData"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(JSON)
def test_any_json_is_a_listing_or_is_refused(value: Any) -> None:
    """No other error, whatever the types."""
    for whole in (value, {"sha": SHA, "siblings": [value]}, {"sha": SHA, "siblings": value}):
        try:
            found = read_listing("o/r", json.dumps(whole).encode())
        except PullFailed:
            continue
        assert all(".." not in name.split("/") for name in found.files)
