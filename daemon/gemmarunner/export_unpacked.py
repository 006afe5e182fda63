"""Writes a model of GGUF files in Hugging Face's layout, its weights unpacked.

Weights become bfloat16, or float32 where the file has all of them so. They are read, unpacked and
written some rows at a time: a model of 60 GB takes no more memory than one of 60 MB.
"""

import json
import math
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from gemmad.api.errors import BadRequest, LoadFailed, WillNotFit
from gemmad.formats.safetensors import MAX_HEADER_BYTES
from gemmarunner.export_config import drafter_settings, target_settings
from gemmarunner.files import Files, read_eos_ids, read_format, read_tokenizer
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.gguf_config import read_drafter_config, read_target_config
from gemmarunner.models.gguf_file import GgufModel, read_model
from gemmarunner.models.gguf_names import ONES
from gemmarunner.models.gguf_types import Blocks, unpacked
from gemmarunner.models.gguf_weights import Piece, joined_shape, stored_dtype, text_pieces
from gemmarunner.models.weights import Progress

_CHUNK_WEIGHTS = 1 << 22
_ORDERING = "masked_embedding.token_ordering"
_HEAD = "lm_head.weight"
_OWN_KV = ("self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.k_norm.weight")
_DTYPES = {torch.float32: ("F32", "float32"), torch.bfloat16: ("BF16", "bfloat16")}
_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}


class _Written(NamedTuple):
    """A tensor of the new file."""

    name: str
    shape: tuple[int, ...]
    pieces: list[Piece]  # none: it is all ones

    @property
    def whole(self) -> bool:
        """It holds whole numbers, which stay such."""
        return self.name == _ORDERING

    def nbytes(self, dtype: torch.dtype) -> int:
        """Its bytes in the new file."""
        return math.prod(self.shape) * (8 if self.whole else dtype.itemsize)


def write_unpacked(files: Files, directory: Path, progress: Progress, *, is_drafter: bool) -> None:
    """The GGUF model of `files` is in the new `directory` as transformers reads it.

    Raises:
        LoadFailed: its files are damaged.
        BadRequest: it cannot be said in that layout.
        WillNotFit: the disk has no room for it.
    """
    model = read_model(files)
    dtype = stored_dtype(model)
    config = read_drafter_config(model) if is_drafter else read_target_config(model)
    heads = tuple(
        (config.heads * layer.head_dim, layer.kv_heads * layer.head_dim) for layer in config.layers
    )
    pieces = text_pieces(model, is_drafter=is_drafter, heads=() if is_drafter else heads)
    donors = [layer.donor is not None for layer in config.layers]
    tensors = list(_tensors(pieces, donors, "" if is_drafter else "model."))
    if isinstance(config, TargetConfig):
        texts = _target_texts(files, model, config, _DTYPES[dtype][1])
    else:
        texts = {"config.json": drafter_settings(config, _DTYPES[dtype][1])}
    _check_room(directory.parent, sum(tensor.nbytes(dtype) for tensor in tensors))
    directory.mkdir(parents=True)
    for name, text in texts.items():
        _write_text(directory / name, text)
    for name, path in files.items():  # what lies beside a GGUF file goes before what is in it
        if not name.endswith(".gguf"):
            shutil.copyfile(path, directory / Path(name).name)
    _write_weights(tensors, directory / "model.safetensors", dtype, progress)


def _target_texts(
    files: Files, model: GgufModel, config: TargetConfig, dtype: str
) -> dict[str, Any]:
    form, tokenizer = read_format(files), read_tokenizer(files)
    generation = _generation(model, config, read_eos_ids(files))
    special = {"bos_token": form.bos, "eos_token": form.eos, "pad_token": "<pad>"}
    known = {key: text for key, text in special.items() if tokenizer.token_to_id(text) is not None}
    found: dict[str, Any] = {
        "config.json": target_settings(config, generation, dtype),
        "generation_config.json": generation,
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": config.max_positions,
            "padding_side": "left",
            **known,
        },
    }
    return found | ({} if form.template is None else {"chat_template.jinja": form.template})


def _generation(model: GgufModel, config: TargetConfig, ends: frozenset[int]) -> dict[str, Any]:
    """What a generation config says: the tokens that end a text, and how to draw others."""
    found: dict[str, Any] = {"eos_token_id": sorted(ends), "pad_token_id": config.pad_id}
    bos = model.metadata.get("tokenizer.ggml.bos_token_id")
    if type(bos) is int:
        found["bos_token_id"] = bos
    for key, name in _SAMPLING.items():
        value = model.metadata.get(f"general.sampling.{key}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value if isinstance(value, int) else float(f"{value:.6g}")
    if found.keys() & _SAMPLING.values():
        found["do_sample"] = True
    if config.suppress_tokens:
        found["suppress_tokens"] = list(config.suppress_tokens)
    return found


def _tensors(
    pieces: Mapping[str, list[Piece]], donors: list[bool], prefix: str
) -> Iterator[_Written]:
    """What is written: all that a file has and somebody reads, and what only others have."""
    if pieces.get(_HEAD):
        raise BadRequest(
            "This GGUF model has a head of its own, which Hugging Face's layout has no place for.",
            fix="Export it as FILE.gguf.",
        )
    routed = any(found for name, found in pieces.items() if name.endswith("router.scale"))
    for name, found in pieces.items():
        layer = int(name.split("layers.")[1].split(".")[0]) if "layers." in name else None
        if layer is not None and name.endswith(_OWN_KV) and donors[layer]:
            continue
        if found:
            yield _Written(prefix + name, joined_shape([piece.shape for piece in found]), found)
        elif name.endswith(ONES[0]):
            yield _Written(prefix + name, (1,), [])
        elif name.endswith(ONES[1]) and routed and layer is not None:
            [scores] = pieces[name.replace(ONES[1], "router.proj.weight")]
            yield _Written(prefix + name, scores.shape[:1], [])


def _check_room(place: Path, need: int) -> None:
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < need:
        raise WillNotFit(
            f"The weights, unpacked, take {need} bytes; the disk has {free}.",
            fix="Export it as FILE.gguf, which stays packed, or to another disk.",
        )


def _write_text(path: Path, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
    path.write_text(text, "utf-8")


def _write_weights(
    tensors: list[_Written], path: Path, dtype: torch.dtype, progress: Progress
) -> None:
    header = _header(tensors, dtype)
    total, done = sum(tensor.nbytes(dtype) for tensor in tensors), 0
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for tensor in tensors:
            for rows in _rows(tensor, dtype):
                data = rows.contiguous().view(-1).view(torch.uint8).numpy()
                done += out.write(data.data)
                progress(done, total)
        out.flush()
        os.fsync(out.fileno())


def _header(tensors: list[_Written], dtype: torch.dtype) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.nbytes(dtype)
        entries[tensor.name] = {
            "dtype": "I64" if tensor.whole else _DTYPES[dtype][0],
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    assert len(text) < MAX_HEADER_BYTES
    return text + b" " * (-len(text) % 8)


def _rows(tensor: _Written, dtype: torch.dtype) -> Iterator[Tensor]:
    """The tensor's rows in order, some at a time."""
    if not tensor.pieces:
        yield torch.ones(tensor.shape, dtype=dtype)
    elif len(tensor.pieces) == 1:
        yield from _piece_rows(tensor.pieces[0], torch.int64 if tensor.whole else dtype)
    else:  # experts: the gates of each above its ups
        for expert in range(tensor.shape[0]):
            for piece in tensor.pieces:
                yield from _piece_rows(_expert(piece, expert), dtype)


def _expert(piece: Piece, number: int) -> Piece:
    place, count = piece.place, piece.shape[0]
    each = place.nbytes // count
    begin = place.begin + number * each
    return Piece(place._replace(begin=begin, nbytes=each), piece.type, piece.shape[1:])


def _piece_rows(piece: Piece, dtype: torch.dtype) -> Iterator[Tensor]:
    place, columns = piece.place, piece.shape[-1] if piece.shape else 1
    rows = max(1, math.prod(piece.shape)) // columns
    each = place.nbytes // rows
    step = max(1, _CHUNK_WEIGHTS // columns)
    with place.path.open("rb") as file:
        file.seek(place.begin)
        for begin in range(0, rows, step):
            count = min(step, rows - begin)
            data = _read(file, count * each)
            numbers = unpacked(Blocks(piece.type, data, (count, columns)), dtype)
            yield numbers.to(dtype)


def _read(file: BinaryIO, nbytes: int) -> Tensor:
    data = bytearray(nbytes)
    if file.readinto(data) != nbytes:  # type: ignore[attr-defined]
        raise LoadFailed("The GGUF file ends before its weights do.", fix="Pull the model again.")
    return torch.frombuffer(data, dtype=torch.uint8)
