"""Takes a model's tensors out of its GGUF files, still packed where kernels can use them so."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmad.formats.ggml_types import GGML_TYPES
from gemmarunner.models.checkpoint import natural
from gemmarunner.models.gguf_file import GgufModel, StoredTensor
from gemmarunner.models.gguf_names import (
    FUSED_QKV,
    GATE_EXPERTS,
    ONES,
    UP_EXPERTS,
    checkpoint_names,
    gguf_names,
    layer_of,
)
from gemmarunner.models.gguf_types import (
    FORMATS,
    PLAIN,
    Blocks,
    FileTable,
    PackedTable,
    TensorTable,
    experts_apart,
    packed,
    unpacked,
)
from gemmarunner.models.header import Place
from gemmarunner.models.mapped import MappedFiles
from gemmarunner.models.pagecache import PageReader
from gemmarunner.models.readahead import ReadAhead
from gemmarunner.models.weights import Matrix, Progress, Table
from gemmarunner.quant.formats import Packed
from gemmarunner.quant.stacked import stacked

_AGAIN = "Pull the model again."
_TABLES = ("embed_tokens.weight", "embed_tokens_per_layer.weight")
_LOOKED_UP = "embed_tokens_per_layer.weight"
_HEAD = "lm_head.weight"
_QKV = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")


class Piece(NamedTuple):
    """Rows of a stored tensor that are (a part of) one that decoders ask for."""

    place: Place  # dtype and shape are of its bytes
    type: int
    shape: tuple[int, ...]


class GgufWeights:
    """A `PackedTake` over GGUF files; use it in a `with`."""

    def __init__(
        self,
        model: GgufModel,
        device: torch.device,
        dtype: torch.dtype,
        progress: Progress | None,
        *,
        is_drafter: bool,
        heads: tuple[tuple[int, int], ...] = (),
        keep_packed: bool,
    ) -> None:
        """`heads` has the rows of each layer's queries and keys; `keep_packed`: see `matrix`."""
        self.device = device
        self.dtype = dtype
        self._keep_packed = keep_packed
        self._progress = progress or (lambda done, total: None)
        self._pieces = text_pieces(model, is_drafter=is_drafter, heads=heads)
        places = [piece.place for found in self._pieces.values() for piece in found]
        self._file_names = {stored.path: stored.file_name for stored in model.tensors.values()}
        self._mapped = MappedFiles()
        self._total = sum(place.nbytes for place in places)
        self._done = 0
        self._tied: Packed | None = None  # the embedding table, where the head is the same
        self._ahead: ReadAhead | None = None
        self._pages: PageReader | None = None
        order = sorted(places, key=lambda place: natural(place.name))
        try:
            if device.type == "cpu":
                self._pages = PageReader([p for p in order if not _looked_up(p.name)])
            else:
                self._ahead = ReadAhead(order, device)
        except OSError as error:
            raise LoadFailed(f"The GGUF file could not be read: {error}.", fix=_AGAIN) from error

    def __enter__(self) -> "GgufWeights":
        return self

    def __exit__(self, *_: object) -> None:
        for reader in (self._ahead, self._pages):
            if reader is not None:
                reader.close()

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        """See `models.weights.Take`; packed ones are unpacked."""
        if name.endswith(ONES) and not self._pieces.get(name):
            return torch.ones(shape, dtype=self.dtype, device=self.device)
        parts = [self._unpacked(blocks) for blocks in self._blocks(name, shape)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # experts: gate above up

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        """See `models.weights.PackedTake`; packed where `keep_packed` and its type has kernels."""
        if name == _HEAD and not self._pieces[name]:
            return self._tied_head(shape)
        [blocks] = self._blocks(name, shape)
        return self._kept(blocks)

    def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
        """See `models.weights.PackedTake`; each is kept as `matrix` keeps one."""
        parts = [experts_apart(blocks) for blocks in self._blocks(name, shape)]
        for halves in zip(*parts, strict=True):
            yield stacked([self._kept(half) for half in halves])

    def table(self, name: str, shape: tuple[int, int]) -> Table:
        """See `models.weights.PackedTake`; on a CPU its rows stay in the file."""
        [blocks] = self._blocks(name, shape)
        if name == _TABLES[0] and self._pieces[_HEAD]:  # a tensor would say that the head is tied
            return TensorTable(self._unpacked(blocks))
        if blocks.type in PLAIN:
            return blocks.data.view(PLAIN[blocks.type]).view(shape)
        if self.device.type == "cpu":
            return FileTable(blocks)
        table = self._kept(blocks)
        if isinstance(table, Tensor):
            return table
        if not _looked_up(name):
            self._tied = table
        return PackedTable(table)

    def _tied_head(self, shape: tuple[int, int]) -> Matrix:
        if self._tied is not None:
            return self._tied
        [blocks] = self._blocks(_TABLES[0], shape)
        return self._kept(blocks)

    def _kept(self, blocks: Blocks) -> Tensor | Packed:
        if self._keep_packed and blocks.type in FORMATS:
            return packed(blocks)
        return self._unpacked(blocks)

    def _unpacked(self, blocks: Blocks) -> Tensor:
        return unpacked(blocks, self.dtype)

    def _blocks(self, name: str, shape: tuple[int, ...]) -> list[Blocks]:
        """The bytes of a tensor, checked to be of `shape`."""
        pieces = self._pieces.get(name)
        if not pieces:
            raise LoadFailed(
                f"The GGUF file lacks the tensor {next(gguf_names(name))}.", fix=_AGAIN
            )
        whole = joined_shape([piece.shape for piece in pieces])
        if whole != shape and math.prod(whole) == 1 == math.prod(shape):
            whole = shape
        if whole != shape:
            raise LoadFailed(
                f"The tensor {next(gguf_names(name))} has shape {whole}; the file's metadata "
                f"wants {shape}.",
                fix=_AGAIN,
            )
        lone = len(pieces) == 1
        return [Blocks(p.type, self._bytes(p.place), shape if lone else p.shape) for p in pieces]

    def _bytes(self, place: Place) -> Tensor:
        try:
            if self._ahead is not None:
                data = self._ahead.get(place.name)
            else:
                assert self._pages is not None
                if not _looked_up(place.name):
                    self._pages.walked(place.nbytes)
                data = self._mapped.view(place.path, place.begin, place.nbytes)
        except OSError as error:
            name = self._file_names[place.path]
            raise LoadFailed(f"{name} could not be read: {error}.", fix=_AGAIN) from error
        self._done = min(self._total, self._done + place.nbytes)
        self._progress(self._done, self._total)
        return data


def text_pieces(
    model: GgufModel, *, is_drafter: bool, heads: tuple[tuple[int, int], ...] = ()
) -> dict[str, list[Piece]]:
    """Where each tensor that a decoder may ask for lies; nowhere, if the file has none.

    `heads` has the rows of each layer's queries and keys. Raises LoadFailed.
    """
    names = checkpoint_names(is_drafter, model.keys().integer("block_count"))
    return {name: _pieces(model, name, heads) for name in names}


def stored_dtype(model: GgufModel) -> torch.dtype:
    """What a model runs in "as stored": float32 if all of it is, else bfloat16.

    float16 and packed files are made of bfloat16 models, whose activations float16 cannot hold.
    """
    matrices = (info for info, _, _ in model.tensors.values() if len(info.shape) > 1)
    return torch.float32 if all(info.type == 0 for info in matrices) else torch.bfloat16


def model_bytes(model: GgufModel) -> int:
    """Bytes of the text model's weights in `stored_dtype`, but those a CPU leaves in the file."""
    kept = (
        math.prod(info.shape)
        for name, (info, _, _) in model.tensors.items()
        if _is_text(name) and name != "per_layer_token_embd.weight"
    )
    return sum(kept) * stored_dtype(model).itemsize


def packing_notes(model: GgufModel, *, keep_packed: bool, keep_experts: bool) -> list[str]:
    """What a person should know of weights that are unpacked when the model is loaded."""
    found = unpacked_types(model, keep_packed=keep_packed, keep_experts=keep_experts)
    return [
        f"{count:,} weights of type {kind} are unpacked when the model is loaded: there is no "
        "kernel for them here."
        for kind, count in sorted(found.items())
    ]


def unpacked_types(model: GgufModel, *, keep_packed: bool, keep_experts: bool) -> dict[str, int]:
    """How many weights of each packed type are unpacked when the model is loaded."""
    found: dict[str, int] = {}
    for name, (info, _, _) in model.tensors.items():
        experts = name.endswith("_exps.weight")
        if (
            _is_text(name)
            and info.type not in PLAIN
            and not ((keep_experts if experts else keep_packed) and info.type in FORMATS)
        ):
            kind = GGML_TYPES[info.type].name + (" experts" if experts else "")
            found[kind] = found.get(kind, 0) + math.prod(info.shape)
    return found


def _is_text(name: str) -> bool:
    return name.startswith(("blk.", "token_embd", "output", "per_layer", "nextn", "masked"))


def _looked_up(name: str) -> bool:
    return name.endswith(_LOOKED_UP)


def joined_shape(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len(shapes) == 1:
        return shapes[0]
    return (shapes[0][0], sum(shape[1] for shape in shapes), *shapes[0][2:])


def _pieces(model: GgufModel, name: str, heads: tuple[tuple[int, int], ...]) -> list[Piece]:
    for found in gguf_names(name):
        if found in model.tensors:
            _refuse_scaled(model, found)
            return [_whole(name, model.tensors[found])]
    return list(_other_layouts(model, name, heads))


def _refuse_scaled(model: GgufModel, name: str) -> None:
    """NVFP4 writers put a factor beside the matrix, which nothing here applies."""
    scale = name.removesuffix("weight") + "scale"
    meant = name.endswith(("ffn_gate_inp.weight", "ffn_down_exps.weight"))
    if name.endswith(".weight") and not meant and scale in model.tensors:
        raise LoadFailed(
            f"The GGUF file scales its weights by {scale}, which cannot be done here.",
            fix="Use another quantization of the model, such as Q4_K_M or Q8_0.",
        )


def _other_layouts(
    model: GgufModel, name: str, heads: tuple[tuple[int, int], ...]
) -> Iterator[Piece]:
    """Queries, keys and values as rows of one tensor; experts' gates and ups as two."""
    layer = layer_of(name)
    if layer is None:
        return
    prefix, part = layer
    fused = model.tensors.get(prefix + FUSED_QKV)
    if part in _QKV and fused is not None and heads:
        at, rows = _QKV.index(part), fused.info.shape[0]
        queries, keys = heads[int(prefix.split(".")[1])]
        bounds = (0, queries, queries + keys, rows)
        if queries + 2 * keys == rows:
            yield _whole(name, fused, (bounds[at], bounds[at + 1]))
    if part == "experts.gate_up_proj":
        halves = [model.tensors.get(prefix + half) for half in (GATE_EXPERTS, UP_EXPERTS)]
        for number, half in enumerate(halves):
            if half is not None and None not in halves:
                yield _whole(f"{name}.{number}", half)


def _whole(name: str, stored: StoredTensor, rows: tuple[int, int] | None = None) -> Piece:
    """A stored tensor, or some of its rows, under a decoder's name."""
    info, path, _ = stored
    begin, end = rows or (0, info.shape[0] if info.shape else 1)
    each = info.nbytes // (info.shape[0] if info.shape else 1)
    nbytes = (end - begin) * each
    place = Place(name, path, info.begin + begin * each, nbytes, torch.uint8, (nbytes,))
    return Piece(place, info.type, (end - begin, *info.shape[1:]) if info.shape else ())
