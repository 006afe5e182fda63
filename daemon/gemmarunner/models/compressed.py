"""Matrices of compressed-tensors checkpoints (w4a16, w8a16), given as a decoder asks for them.

    X.weight_packed      [N, K * bits / 32] int32
    X.weight_scale       [N, K / group] or [N, 1]   bf16, f16 or f32
    X.weight_zero_point  [N * bits / 32, K / group] int32, packed along the rows; if asymmetric
    X.weight_shape       [2] int64
or X.weight [N, K] int8 with X.weight_scale and, if asymmetric, X.weight_zero_point [N, K / group]
int8. What a matrix is, its tensors tell: `config.json` only says that none is of another kind. Of
experts, each may have its own matrices, experts.7.gate_proj, where the decoder asks for one tensor.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmarunner.models.weights import Matrix, Table, Take, take_matrices, take_matrix, take_table
from gemmarunner.quant.formats import Packed
from gemmarunner.quant.grouped import Grouped, unpack_words
from gemmarunner.quant.stacked import stacked

_AGAIN = "Are config.json and the weights of one revision? Pull the model again."
_EXPERTS = {"experts.gate_up_proj": ("gate_proj", "up_proj"), "experts.down_proj": ("down_proj",)}

Shapes = Mapping[str, tuple[int, ...]]


class CompressedTake:
    """Takes what is compressed through `take` in parts, and everything else as it is."""

    def __init__(
        self,
        take: Take,
        shapes: Shapes,
        dtype: torch.dtype,
        notes: list[str],
        *,
        keep_packed: bool = True,
    ) -> None:
        """`shapes`: of every tensor that `take` can give; `dtype`: what unpacked weights become.

        `keep_packed`: matrices may be given packed. `notes` gets which are not, and why.
        """
        self._take = take
        self._shapes = shapes
        self._dtype = dtype
        self._notes = notes
        self._keep_packed = keep_packed

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        """As `Take` says; raises LoadFailed where a matrix' tensors don't go together."""
        if self._is_compressed(name):
            return self._grouped(name, _two(name, shape)).dequantized(self._dtype)
        if name.endswith(tuple(_EXPERTS)) and name not in self._shapes:
            return self._experts(name, shape)
        return self._take(name, shape, stored=stored)

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        """A compressed matrix is packed where that loses nothing, and said where it is not."""
        if not self._is_compressed(name):
            return take_matrix(self._take, (name, shape))
        grouped = self._grouped(name, shape)
        kept = grouped.packed() if self._keep_packed else "this device has no product for them"
        if isinstance(kept, Packed):
            return kept
        self._tell(f"Some quantized matrices of the file are kept unpacked: {kept}.")
        return grouped.dequantized(self._dtype)

    def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
        """Experts that have matrices of their own, each as `matrix` gives it."""
        if name in self._shapes:
            yield from take_matrices(self._take, name, shape)
            return
        for names, one in _of_experts(name, shape):
            yield stacked([self.matrix(part, one) for part in names])

    def table(self, name: str, shape: tuple[int, int]) -> Table:
        """A table is unpacked: its rows are looked up one by one."""
        if not self._is_compressed(name):
            return take_table(self._take, name, shape)
        return self(name, shape)

    def _is_compressed(self, name: str) -> bool:
        return f"{name}_packed" in self._shapes or f"{name}_scale" in self._shapes

    def _experts(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Experts [E, out, in] one by one."""
        made = torch.empty(0)
        for expert, (names, one) in enumerate(_of_experts(name, shape)):
            joined = torch.cat([self(part, one) for part in names])
            if not expert:  # all of it at once: two copies of 20 GB would not fit
                made = joined.new_empty(shape)
            made[expert] = joined
        return made

    def _tell(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def _grouped(self, name: str, shape: tuple[int, int]) -> Grouped:
        """The matrix as the file has it."""
        if f"{name}_g_idx" in self._shapes:
            raise _broken(name, "its columns are reordered (weight_g_idx)")
        codes, bits = self._codes(name, shape)
        found = self._shapes.get(f"{name}_scale", ())
        groups = found[1] if len(found) == 2 else 1
        if found not in ((shape[0], groups), (shape[0],)) or not groups or shape[1] % groups:
            raise _broken(name, f"its scales have shape {found}")
        scale = self._take(f"{name}_scale", found, stored=True).view(shape[0], groups)
        return Grouped(codes, scale, self._zero(name, (shape[0], groups), bits), bits)

    def _codes(self, name: str, shape: tuple[int, int]) -> tuple[Tensor, int]:
        """[N, K] int8, and the bits that each had."""
        if f"{name}_packed" not in self._shapes:
            return self._integers(name, shape, torch.int8), 8
        if f"{name}_shape" in self._shapes:
            told = tuple(self._integers(f"{name}_shape", (2,), torch.int64).tolist())
            if told != shape:
                raise _broken(name, f"it has shape {told}; its config wants {shape}")
        words = self._shapes[f"{name}_packed"][-1]
        bits = next((b for b in (4, 8) if words == -(-shape[1] * b // 32)), 0)
        if not bits:
            raise _broken(name, f"a row of {words} words does not hold {shape[1]} weights")
        packed = self._integers(f"{name}_packed", (shape[0], words), torch.int32)
        return unpack_words(packed, bits, shape[1]), bits

    def _zero(self, name: str, shape: tuple[int, int], bits: int) -> Tensor | None:
        key = f"{name}_zero_point"
        if key not in self._shapes:
            return None
        rows, groups = shape
        if f"{name}_packed" not in self._shapes:
            return self._integers(key, shape, torch.int8)
        words = self._integers(key, (-(-rows * bits // 32), groups), torch.int32)
        return unpack_words(words.t(), bits, rows).t()

    def _integers(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        found = self._take(name, shape, stored=True)
        if found.dtype is not dtype:
            raise _broken(name, f"it holds {found.dtype}, not {dtype}")
        return found


def _of_experts(name: str, shape: tuple[int, ...]) -> Iterator[tuple[list[str], tuple[int, int]]]:
    """Each expert's matrices in the file, one under the other, and the shape of one of them."""
    [(ending, parts)] = [(key, parts) for key, parts in _EXPERTS.items() if name.endswith(key)]
    under, (count, rows, columns) = name.removesuffix(ending) + "experts", shape
    for expert in range(count):
        names = [f"{under}.{expert}.{part}.weight" for part in parts]
        yield names, (rows // len(parts), columns)


def _two(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise _broken(name, f"the decoder wants {shape} of it")
    return shape[0], shape[1]


def _broken(name: str, why: str) -> LoadFailed:
    return LoadFailed(f"The quantized matrix {name} cannot be read: {why}.", fix=_AGAIN)
