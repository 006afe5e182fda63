"""Headers of GGUF files: what is read equals the reference's, and nothing hostile gets through."""

import math
import random
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.formats.gguf import read_gguf
from gemmad.formats.limits import BadFile

BOMBS = sorted((Path(__file__).parent / "bombs").glob("*.gguf"))
TYPES = [t for t in gguf.GGMLQuantizationType if t in gguf.GGML_QUANT_SIZES]
FUZZ_SEED = 20_261_124


def write(path: Path, rows: int = 2, kind: gguf.GGMLQuantizationType | None = None) -> Path:
    """A small valid file with every kind of metadata."""
    writer = gguf.GGUFWriter(path, "gemma4")
    writer.add_uint32("a.count", 7)
    writer.add_float32("a.scale", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_string("a.text", "grüße")
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.texts", ["one", "two"])
    writer.add_tensor("plain", np.arange(rows * 32, dtype=np.float32).reshape(rows, 32))
    if kind is not None:
        block, nbytes = gguf.GGML_QUANT_SIZES[kind]
        columns = math.lcm(block, 32)
        data = np.zeros((rows, columns // block * nbytes), dtype=np.uint8)
        writer.add_tensor("packed", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_tensors_lie_where_the_reference_says(
    tmp_path: Path, kind: gguf.GGMLQuantizationType
) -> None:
    """For every type of weights: names, shapes, offsets, sizes."""
    path = write(tmp_path / "m.gguf", kind=kind)

    found = read_gguf(path).tensors
    reference = gguf.GGUFReader(path).tensors

    assert [(t.name, t.type, t.begin, t.nbytes, t.shape) for t in found] == [
        (t.name, t.tensor_type, t.data_offset, t.n_bytes, tuple(map(int, reversed(t.shape))))
        for t in reference
    ]


def test_metadata_is_read_as_written(tmp_path: Path) -> None:
    """Numbers, flags, texts and lists."""
    found = read_gguf(write(tmp_path / "m.gguf")).metadata

    assert found["general.architecture"] == "gemma4"
    assert (found["a.count"], found["a.scale"], found["a.flag"]) == (7, 0.5, True)
    assert found["a.text"] == "grüße"
    assert list(found["a.numbers"]) == [1, 2, 3]  # type: ignore[arg-type]
    assert found["a.texts"] == ["one", "two"]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda path: path.stem)
def test_bombs_are_refused_at_once(bomb: Path) -> None:
    """Endless arrays, nesting, overflows and early ends cost nothing."""
    started = time.perf_counter()

    with pytest.raises(BadFile):
        read_gguf(bomb)

    assert time.perf_counter() - started < 1.0


def fuzz(path: Path, data: bytes, rounds: int, seed: int) -> int:
    """Mutates `data` `rounds` times; only BadFile may come out. Returns how many were refused."""
    choose, refused = random.Random(seed), 0
    for _ in range(rounds):
        changed = bytearray(data)
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(min(len(changed), 600))
            changed[at : at + choose.choice((1, 1, 8))] = choose.choice(
                (b"\xff" * 8, b"\0", bytes([choose.randrange(256)]), b"\0" * 7 + b"\x40")
            )
        path.write_bytes(changed[: choose.choice((len(changed), choose.randrange(len(changed))))])
        try:
            read_gguf(path)
        except BadFile:
            refused += 1
    return refused


def test_mutated_headers_are_read_or_refused(tmp_path: Path) -> None:
    """Nothing but BadFile comes out of a damaged file."""
    data = write(tmp_path / "m.gguf", kind=gguf.GGMLQuantizationType.Q4_K).read_bytes()

    assert fuzz(tmp_path / "f.gguf", data, 1_500, FUZZ_SEED) > 500


@pytest.mark.slow
def test_many_mutated_headers_are_read_or_refused(tmp_path: Path) -> None:
    """The same, 100,000 times."""
    data = write(tmp_path / "m.gguf", kind=gguf.GGMLQuantizationType.Q4_K).read_bytes()

    assert fuzz(tmp_path / "f.gguf", data, 100_000, FUZZ_SEED + 1) > 30_000


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """With and without the magic number."""
    path = tmp_path_factory.mktemp("g") / "m.gguf"
    for prefix in (b"", b"GGUF\x03\0\0\0"):
        path.write_bytes(prefix + data)
        with pytest.raises(BadFile):
            read_gguf(path)
