"""Headers of GGUF files: what is read equals the reference's, and nothing hostile gets through."""

import math
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmad.formats.gguf import read_gguf
from gemmad.formats.limits import BadFile

TYPES = [t for t in gguf.GGMLQuantizationType if t in gguf.GGML_QUANT_SIZES]


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


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """With and without the magic number."""
    path = tmp_path_factory.mktemp("g") / "m.gguf"
    for prefix in (b"", b"GGUF\x03\0\0\0"):
        path.write_bytes(prefix + data)
        with pytest.raises(BadFile):
            read_gguf(path)
