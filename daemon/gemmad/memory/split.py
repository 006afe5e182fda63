"""What each of several GPUs takes of a pair whose target's layers are split over them; arithmetic.

The last device has the embeddings, the head, the drafter, and every layer whose keys and values
others read: shared layers, and the drafter. The layers before those may be anywhere, in their
order, each with its own keys and values. Every device has a context, and the workspace of a step.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gemmad.memory import fused, plain
from gemmad.memory.parts import LayerBytes, Setting
from gemmad.memory.runtime import RUNTIMES
from gemmad.memory.shapes import HalfShape, PairShape


class Beside(NamedTuple):
    """Workspace and runtime of a device: as the last one of a split, or before it."""

    last: int
    before: int


class SplitBytes(NamedTuple):
    """All that a deal of layers needs to know of a pair."""

    layers: tuple[LayerBytes, ...]
    movable: int  # so many of the first may be on another device than the last
    tables: int  # the target's weights outside its layers
    drafter: int  # its weights and state
    beside: Mapping[str, Beside]  # by device


class Deal(NamedTuple):
    """Devices in the layers' order, each with its number of layers."""

    devices: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def split(self) -> tuple[tuple[str, int], ...]:
        """As a load frame says it."""
        return tuple(zip(self.devices, self.counts, strict=True))


class Share(NamedTuple):
    """What one device takes."""

    target: int
    kv: int
    drafter: int
    beside: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def split_bytes(pair: PairShape, setting: Setting, devices: Iterable[str]) -> SplitBytes:
    """The bytes of `pair` loaded so, by layer."""
    target, runs_by = pair.target, fused if setting.is_fused else plain
    parts, layers = runs_by.parts(pair, setting), runs_by.layers_bytes(pair, setting)
    runtime = RUNTIMES[setting.kind].device_bytes
    movable = target.first_read_elsewhere
    joining = _joining_bytes(target)
    passing = 2 * joining + min(fused.AHEAD_BYTES, sum(own.weights for own in layers[:movable]))
    beside = Beside(
        last=runtime + max(parts.workspace, passing) + parts.graphs,
        before=runtime + runs_by.segment_bytes(pair, setting) + joining,
    )
    return SplitBytes(
        layers=layers,
        movable=movable,
        tables=parts.target - sum(layer.weights for layer in layers),
        drafter=parts.drafter + parts.drafter_state,
        beside=dict.fromkeys(devices, beside),
    )


def shares(found: SplitBytes, dealt: Deal) -> dict[str, Share]:
    """What each device takes of a deal, the last one first: it has all that is no layer."""
    told, begin, last = {}, 0, dealt.devices[-1]
    for id, count in dealt.split:
        mine, is_last = found.layers[begin : begin + count], id == last
        begin += count
        told[id] = Share(
            sum(layer.weights for layer in mine) + is_last * found.tables,
            sum(layer.kv for layer in mine),
            is_last * found.drafter,
            found.beside[id].last if is_last else found.beside[id].before,
        )
    return {last: told.pop(last), **told}


def _joining_bytes(target: HalfShape) -> int:
    """The parts of the largest matrix before they are one, which the allocator keeps.

    The last device has them twice, and what was read ahead: all layers come by way of it.
    """
    largest = max((m.elements // m.copies for own in target.by_layer for m in own), default=0)
    return largest * fused.ITEM
