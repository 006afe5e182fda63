"""How a model's parts ask for their tensors, wherever these come from."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from gemmarunner.native.linear import can_multiply
from gemmarunner.quant.formats import Packed
from gemmarunner.quant.stacked import Stacked, stacked

Progress = Callable[[int, int], None]  # bytes read, bytes to read


class Take(Protocol):
    """Gives the named tensor on the model's device; the shape is checked."""

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        """In the model's dtype, or as it is `stored`: for tables of which few rows are read."""
        ...


class Lookup(Protocol):
    """A table [rows, width] whose rows are unpacked as they are asked for."""

    def look_up(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """The rows [n, width] of `ids` [n] int64, in `dtype` and on the device of `ids`."""
        ...


Matrix: TypeAlias = Tensor | Packed | Stacked
Table: TypeAlias = Tensor | Lookup


@runtime_checkable
class PackedTake(Take, Protocol):
    """A `Take` whose weights may be packed; what asks in these words can use them so."""

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        """A matrix [out, in] that rows will be multiplied with."""
        ...

    def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
        """Each of a stack of experts' matrices [experts, out, in], as it is asked for."""
        ...

    def table(self, name: str, shape: tuple[int, int]) -> Table:
        """A table of which few rows are read."""
        ...


def take_matrix(take: Take, *parts: tuple[str, tuple[int, int]]) -> Matrix:
    """The named matrices, each with its shape, one under the other."""
    if isinstance(take, PackedTake):
        return stacked([take.matrix(name, shape) for name, shape in parts])
    plain = [take(name, shape) for name, shape in parts]
    return plain[0] if len(plain) == 1 else torch.cat(plain)


def take_matrices(take: Take, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
    """Each of the named stack of matrices [experts, out, in], as it is asked for."""
    if isinstance(take, PackedTake):
        return take.matrices(name, shape)
    return iter(take(name, shape))


def take_table(take: Take, name: str, shape: tuple[int, int]) -> Table:
    """The named table as it is stored."""
    return (
        take.table(name, shape) if isinstance(take, PackedTake) else take(name, shape, stored=True)
    )


def take_head(take: Take, table: Table, shape: tuple[int, int], dtype: torch.dtype) -> Matrix:
    """The matrix that scores the vocabulary: the embedding `table` where that is a tensor.

    It has the model's `dtype`, unless whoever multiplies widens what is stored.
    """
    if isinstance(table, Tensor):
        widens = isinstance(take, PackedTake) and can_multiply(table)
        return table if widens else table.to(dtype)
    return take_matrix(take, ("lm_head.weight", shape))


def look_up(table: Table, ids: Tensor) -> Tensor:
    """Rows `ids` of a table, in the dtype it is stored in or, of packed ones, in float32."""
    if isinstance(table, Tensor):
        return torch.nn.functional.embedding(ids, table)
    return table.look_up(ids, torch.float32)


def under(take: Take, prefix: str) -> Take:
    """`take` for names below `prefix`."""
    return _PackedBelow(take, prefix) if isinstance(take, PackedTake) else _Below(take, prefix)


class _Below:
    def __init__(self, take: Take, prefix: str) -> None:
        self._take = take
        self._prefix = prefix

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        return self._take(self._prefix + name, shape, stored=stored)


class _PackedBelow(_Below):
    _take: PackedTake

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        return self._take.matrix(self._prefix + name, shape)

    def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
        return self._take.matrices(self._prefix + name, shape)

    def table(self, name: str, shape: tuple[int, int]) -> Table:
        return self._take.table(self._prefix + name, shape)
