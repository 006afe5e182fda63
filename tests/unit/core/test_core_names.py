"""Names, digests and manifests."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmad.api.errors import BadRequest, StoreBroken
from gemmad.core import ModelName, decode_manifest, digest, encode_manifest
from tests.fakes.store_scenes import manifest


@pytest.mark.parametrize(("text", "full", "short"), [
    ("nano", "nano:latest", "nano"),
    ("nano:latest", "nano:latest", "nano"),
    ("gemma4:e4b", "gemma4:e4b", "gemma4:e4b"),
    ("me/My-Model:v1.2", "me/My-Model:v1.2", "me/My-Model:v1.2"),
    ("hf.co/google/gemma-4", "hf.co/google/gemma-4:latest", "hf.co/google/gemma-4"),
])  # fmt: skip
def test_names_are_read_and_written_the_same_way(text, full, short):
    """The tag is `latest` when there is none."""
    name = ModelName.parse(text)

    assert (str(name), name.short) == (full, short)


def test_case_does_not_make_another_model():
    """Keys are equal; the name keeps how it was written."""
    assert ModelName.parse("Nano:LATEST").key == ModelName.parse("nano").key
    assert ModelName.parse("Nano").short == "Nano"


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "G" * 64])
def test_what_is_not_a_digest_is_refused(text):
    """Only sha256: and 64 lower-case hex digits."""
    with pytest.raises(BadRequest):
        digest(text)


def test_a_manifest_comes_back_as_it_was():
    """Encode and decode are each other's inverse."""
    made = manifest("a", {"config.json": b"{}"}, {"config.json": b"{}"})

    assert decode_manifest(encode_manifest(made)) == made


@given(st.binary(max_size=200))
def test_no_bytes_but_a_manifest_are_a_manifest(data):
    """Anything else is StoreBroken, never another exception."""
    with pytest.raises(StoreBroken):
        decode_manifest(data)


@pytest.mark.parametrize("change", [
    {"schema": 99},
    {"target": {"../x": manifest("a", {"f.json": b""}).target["f.json"]}},
    {"target": {"f.json": msgspec.structs.replace(
        manifest("a", {"f.json": b""}).target["f.json"], digest="sha256:../..")}},
    {"target": {"f.json": msgspec.structs.replace(
        manifest("a", {"f.json": b""}).target["f.json"], size=-1)}},
])  # fmt: skip
def test_a_well_formed_manifest_with_hostile_content_is_refused(change):
    """The hash alone is no proof of good will."""
    bad = msgspec.structs.replace(manifest("a", {"f.json": b""}), **change)
    with pytest.raises(StoreBroken):
        decode_manifest(encode_manifest(bad))
