"""Hostile names and digests never leave the store."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.api.errors import BadRequest
from gemmad.core import ModelName
from gemmad.store.paths import StorePaths

HOSTILE = [
    "..", "../x", "/abs", "a/../b", "a//b", "a/b/c", "C:\\x", "\\\\?\\x", "a\0b", "a b", "%2e%2e",
    "a/", "/", "", ":", "a:", ":a", "a:b:c", "a:..", "a:b/c", "CON", "nul.txt", "a:com1", "x" * 81,
    "a." , "a:b.", ".hidden", "-x", "ａ", "é", "a\n", "hf.co/a/b/c", "evil.com/a/b", "a.json",
    "sha256:" + "0" * 64 + "/..", "~", "~root", "$HOME", "a\u202eb", "a:" + "x" * 300,
]  # fmt: skip
ALPHABET = st.sampled_from([*"abcXYZ019._-/:\\ %\0\n~é．／", "..", "hf.co", "con", "latest"])

DIGESTS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["sha256:", "sha256-", "SHA256:", "sha512:", "", "../", "sha256:/"]),
    st.integers(62, 66).flatmap(lambda n: st.sampled_from(["0" * n, "aF" * (n // 2), "../" * n])),
    st.sampled_from(["", "\n", "/..", " ", "\0"]),
)


@pytest.mark.parametrize("text", [t for t in HOSTILE if not t.startswith("sha256")])
def test_hostile_names_are_refused(text):
    """None of them is a model name."""
    with pytest.raises(BadRequest):
        ModelName.parse(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(ALPHABET, max_size=12).map("".join))
def test_every_accepted_name_stays_under_the_manifests(text):
    """What parses becomes a path of plain parts below the root, and comes back from it."""
    paths = StorePaths(Path("/store"))
    try:
        name = ModelName.parse(text)
    except BadRequest:
        return

    path = paths.manifest(name)
    assert path.relative_to(paths.manifests).parts == (
        *(part.lower() for part in name.parts),
        f"{name.tag.lower()}.json",
    )
    assert paths.name_of(path) == name.key


@settings(max_examples=300, deadline=None)
@given(DIGESTS)
def test_only_true_digests_become_paths(text):
    """Anything but sha256: and 64 lower-case hex digits is refused."""
    paths = StorePaths(Path("/store"))
    try:
        path = paths.blob(text)
    except BadRequest:
        return
    assert path.parent.parent == paths.blobs
    assert f"sha256:{path.name}" == text
    assert len(path.name) == 64


def test_a_hand_made_name_is_checked_again():
    """ModelName is only a dataclass; the path function trusts nobody."""
    paths = StorePaths(Path("/store"))
    with pytest.raises(BadRequest):
        paths.manifest(ModelName(("..", ".."), "x"))
