"""How a model's parts ask for their tensors, wherever these come from."""

from typing import Protocol

from torch import Tensor


class Take(Protocol):
    """Gives the named tensor on the model's device; the shape is checked."""

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        """In the model's dtype, or as it is `stored`: for tables of which few rows are read."""
        ...


def under(take: Take, prefix: str) -> Take:
    """`take` for names below `prefix`."""

    def below(name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        return take(prefix + name, shape, stored=stored)

    return below
