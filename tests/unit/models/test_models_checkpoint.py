"""Safetensors files are read whole or refused with a sentence, in order, by several threads."""

import json
import os
import struct
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gemmad.api.errors import LoadFailed
from gemmarunner.models import header, pagecache
from gemmarunner.models.checkpoint import Checkpoint
from gemmarunner.models.header import BadHeader, read_header
from gemmarunner.models.pagecache import PageReader
from gemmarunner.models.readahead import CutOff, ReadAhead

CPU = torch.device("cpu")
TENSORS = {
    "layers.0.a": torch.randn(7, 5).bfloat16(),
    "layers.10.a": torch.randn(3),
    "layers.2.a": torch.arange(12).view(3, 4),
    "layers.2.empty": torch.empty(0, 4),
    "table": torch.randn(100, 9).half(),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of tensors of several types."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def written(path: Path, entries: object, data: bytes) -> Path:
    """A file with this header, whatever it says."""
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_mapped_tensors_are_what_was_saved(saved: Path) -> None:
    """Every type and shape, also the empty one."""
    checkpoint = Checkpoint({"model.safetensors": saved})

    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.read(name, tuple(tensor.shape)), tensor)
        assert checkpoint.nbytes(name) == tensor.nbytes


def test_places_come_in_the_order_of_layers(saved: Path) -> None:
    """Layer 2 before layer 10, as a model asks for them."""
    names = [place.name for place in Checkpoint({"model.safetensors": saved}).places("layers.")]

    assert names == ["layers.0.a", "layers.2.a", "layers.2.empty", "layers.10.a"]


def test_tensor_at_an_odd_byte_is_read(tmp_path: Path) -> None:
    """Old writers did not pad the header."""
    for pad in range(4):
        path = written(tmp_path / "x", {"t" * (pad + 1): entry()}, struct.pack("<2f", 1.5, -2.0))
        read = Checkpoint({"model.safetensors": path}).read("t" * (pad + 1), (2,))
        assert read.tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"t": entry(offsets=(0, 12))}, "takes 8 bytes, not 12"),
        ({"t": entry(shape=(1 << 40,), offsets=(0, 1 << 42))}, "ends at byte"),
        ({"t": entry(shape=(-2,))}, "odd shape"),
        ({"t": entry(shape=(True,))}, "odd shape"),
        ({"t": entry(dtype="F4")}, "unknown type F4"),
        ({"t": entry(offsets=(0,))}, "does not describe"),
        ({"t": 7}, "does not describe"),
        ([1], "no object"),
    ],
)
def test_header_that_lies_is_refused(tmp_path: Path, entries: object, words: str) -> None:
    """Nothing is mapped or allocated on the word of a damaged header."""
    path = written(tmp_path / "x", entries, bytes(8))

    with pytest.raises(BadHeader, match=words):
        read_header(path)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 10_000), flips=st.lists(st.integers(0, 10_000), max_size=3))
def test_rotten_file_never_surprises(tmp_path_factory, cut: int, flips: list[int]) -> None:
    """Whatever is cut off or flipped: tensors come, or LoadFailed that names the file."""
    path = tmp_path_factory.mktemp("rot") / "m"
    save_file(TENSORS, path)
    data = bytearray(path.read_bytes())
    for flip in flips:
        data[flip % len(data)] ^= 0x40
    path.write_bytes(data[: cut % (len(data) + 1)])
    try:
        checkpoint = Checkpoint({"model.safetensors": path})
        for place in checkpoint.places():
            checkpoint.read(place.name, place.shape)
    except LoadFailed as error:
        words = error.message
    else:
        return

    assert "model.safetensors could not be read" in words


def test_header_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length of gigabytes is not believed."""
    monkeypatch.setattr(header, "MAX_HEADER_BYTES", 20)
    path = written(tmp_path / "x", {"t": entry()}, bytes(8))

    with pytest.raises(BadHeader, match="does not begin"):
        read_header(path)


@settings(max_examples=40, deadline=None)
@given(
    order=st.permutations(sorted(TENSORS)),
    threads=st.integers(1, 4),
    piece=st.integers(1, 400),
    ahead=st.integers(1, 3000),
)
def test_read_ahead_gives_all_in_any_order(tmp_path_factory, order, threads, piece, ahead) -> None:
    """However it is cut, whoever is first, and however little may wait."""
    path = tmp_path_factory.getbasetemp() / "ahead.safetensors"
    if not path.exists():
        save_file(TENSORS, path)
    places = Checkpoint({"model.safetensors": path}).places()
    with ReadAhead(places, CPU, threads=threads, piece_bytes=piece, ahead_bytes=ahead) as reader:
        for name in order:
            expected = TENSORS[name]
            got = reader.get(name).view(expected.dtype).view(expected.shape)
            assert torch.equal(got, expected)


def test_read_ahead_of_a_file_that_shrinks(saved: Path) -> None:
    """A file cut off after its header was read is an error for whoever waits, not a hang."""
    places = Checkpoint({"model.safetensors": saved}).places()
    saved.write_bytes(saved.read_bytes()[:-1000])

    with ReadAhead(places, CPU) as reader, pytest.raises(CutOff, match="ends at byte"):
        list(map(reader.get, (place.name for place in places)))


def test_closing_early_ends_the_threads(saved: Path) -> None:
    """A model that could not be built leaves nothing behind."""
    before = threading.active_count()
    reader = ReadAhead(Checkpoint({"model.safetensors": saved}).places(), CPU, ahead_bytes=1)
    reader.close()

    assert threading.active_count() == before


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the pieces that the system was asked for."""
    asked: list[int] = []
    monkeypatch.setattr(pagecache, "PIECE_BYTES", 64)
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, begin, nbytes, how: asked.append(nbytes))
    return asked


def test_page_reader_keeps_its_distance(saved: Path, advised: list[int]) -> None:
    """It asks for no more than was walked and a little; in the end for everything."""
    places = Checkpoint({"model.safetensors": saved}).places()
    total = sum(place.nbytes for place in places)
    with PageReader(places, ahead_bytes=100) as pages:
        walked = 0
        for place in places:
            assert sum(advised) <= walked + 100 + 64
            pages.walked(place.nbytes)
            walked += place.nbytes
        assert pages._thread is not None
        pages._thread.join(10)

    assert sum(advised) == total
    assert max(advised) == 64


def test_page_reader_closes_early(saved: Path, advised: list[int]) -> None:
    """A walk that ended in an error leaves no thread behind."""
    before = threading.active_count()
    with PageReader(Checkpoint({"model.safetensors": saved}).places(), ahead_bytes=1):
        pass

    assert threading.active_count() == before
