"""Which device each layer of a target is on, where its layers are split over several."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.turns import Part, Turn
from gemmarunner.models.weights import Matrix, PackedTake, Table, Take

Split = Sequence[tuple[str, int]]  # device, number of layers; in the layers' order


def layer_devices(split: Split, config: TargetConfig, main: torch.device) -> list[torch.device]:
    """The device of every layer; `main`, that of embeddings and head, has the last ones.

    Raises:
        LoadFailed: the split is not one of this target.
    """
    if not split:
        return [main] * len(config.layers)
    found = [torch.device(device) for device, count in split for _ in range(count)]
    if len(found) != len(config.layers):
        raise LoadFailed(
            f"The split has {len(found)} layers, the target {len(config.layers)}.",
            fix="Split exactly the target's layers.",
        )
    if found[-1] != main:
        raise LoadFailed(f"The last layers are on {found[-1]}, the head on {main}.")
    # What these layers write, later layers and the drafter read in place.
    read = {config.sliding_donor, config.full_donor}
    read |= {layer.donor for layer in config.layers if layer.donor is not None}
    if away := [index for index in sorted(read) if found[index] != main]:
        raise LoadFailed(
            f"Layer {away[0]} is on {found[away[0]]}, but its keys and values are read on {main}.",
            fix=f"Put the layers from {away[0]} on together.",
        )
    return found


def stretches(
    devices: Sequence[torch.device], begin: int, end: int
) -> Iterator[tuple[int, int, torch.device]]:
    """Neighbouring layers of begin..end-1 on one device: first, one past the last, device."""
    for device, layers in groupby(range(begin, end), key=lambda index: devices[index]):
        found = list(layers)
        yield found[0], found[-1] + 1, device


def moved(turn: Turn, device: torch.device) -> Turn:
    """The same rows for layers on `device`: angles and masks are there."""
    parts = tuple(
        Part(
            part.cache,
            part.span._replace(
                pieces=tuple(p._replace(mask=p.mask.to(device)) for p in part.span.pieces)
            ),
        )
        for part in turn.parts
    )
    return Turn(turn.cos.to(device), turn.sin.to(device), parts)


def taking_to(take: Take, device: torch.device) -> Take:
    """`take`, whose tensors come to `device`."""
    return _PackedTo(take, device) if isinstance(take, PackedTake) else _To(take, device)


class _To:
    def __init__(self, take: Take, device: torch.device) -> None:
        self._take = take
        self._device = device

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        return self._take(name, shape, stored=stored).to(self._device)


class _PackedTo(_To):
    _take: PackedTake

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        return self._take.matrix(name, shape).to(self._device)

    def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
        return (found.to(self._device) for found in self._take.matrices(name, shape))

    def table(self, name: str, shape: tuple[int, int]) -> Table:
        return self._take.table(name, shape)
