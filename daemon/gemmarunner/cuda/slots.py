"""Keys and values of several sequences, and the hidden row each one's next round drafts from.

```
full layer     [slots, 2, K/V heads, ring, head_dim]   ring >= capacity: it never wraps
sliding layer  [slots, 2, K/V heads, ring, head_dim]   ring >= window + SPARE
```
Keys at [:, 0], values at [:, 1]; position p lies at index p % ring. What lies beyond a sequence's
length is dead, and is written over by the next rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gemmarunner.models.config import TargetConfig

ALIGNED = 64  # rings are multiples of it, so that attention's pieces never wrap inside
SPARE = 64  # rows that may be written before they are attended, without touching a live key


@dataclass(frozen=True, slots=True)
class SlotSnapshot:
    """A copy of what one slot's committed positions need."""

    length: int
    layers: Mapping[int, Tensor]  # [2, K/V heads, positions, head_dim], the last one committed

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(tensor.nbytes for tensor in self.layers.values())


class Slots:
    """Places for `count` sequences of up to `capacity` positions each.

    Lengths live on the host: the backend reads and moves them on between rounds.
    """

    def __init__(
        self,
        config: TargetConfig,
        count: int,
        capacity: int,
        device: torch.device,
        dtype: torch.dtype,
        layer_devices: Sequence[torch.device] | None = None,
    ) -> None:
        """`layer_devices`: where each layer's keys and values are, if not all on `device`."""
        assert count > 0
        assert capacity > 0
        full = _aligned(capacity)
        rings = {"full": full, "sliding": min(full, _aligned(config.window + SPARE))}
        self.count = count
        self.window = config.window
        self.hidden = torch.zeros(count, config.hidden, device=device, dtype=dtype)
        self._sliding_ring = rings["sliding"]
        self._is_sliding = [layer.kind == "sliding" for layer in config.layers]
        self._caches = {
            index: torch.zeros(
                (count, 2, layer.kv_heads, rings[layer.kind], layer.head_dim),
                device=device if layer_devices is None else layer_devices[index],
                dtype=dtype,
            )
            for index, layer in enumerate(config.layers)
            if layer.donor is None
        }
        self._lengths = [0] * count
        self._written = [0] * count  # one past the last position ever written since it was empty
        self._oldest = [0] * count  # sliding layers were filled from here on

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(cache.nbytes for cache in self._caches.values())

    def nbytes_of(self, begin: int, end: int) -> int:
        """Bytes of the keys and values of layers begin..end-1."""
        return sum(c.nbytes for index, c in self._caches.items() if begin <= index < end)

    def cache(self, layer: int) -> Tensor:
        """Keys and values of a layer that owns some: [slots, 2, K/V heads, ring, head_dim]."""
        return self._caches[layer]

    def length(self, slot: int) -> int:
        """Committed positions."""
        return self._lengths[slot]

    def room(self, slot: int) -> int:
        """Rows that may be written from the length on."""
        return self._full_ring - self._lengths[slot]

    def write_ahead(self, slot: int, rows: int) -> None:
        """Takes note that `rows` positions from the length on are about to be written."""
        end = self._lengths[slot] + rows
        assert end <= self._full_ring, (end, self._full_ring)
        self._written[slot] = max(self._written[slot], end)

    def advance(self, slot: int, rows: int) -> None:
        """Commits `rows` positions more, written before."""
        self._lengths[slot] += rows
        assert self._lengths[slot] <= self._written[slot]

    def can_truncate(self, slot: int, length: int) -> bool:
        """Whether a row at `length` would find every key it has to see."""
        held = max(self._oldest[slot], self._written[slot] - self._sliding_ring)
        reaches_back = max(0, length - self.window) >= held
        return 0 <= length <= self._lengths[slot] and (reaches_back or length == 0)

    def truncate(self, slot: int, length: int) -> None:
        """Drops all positions from `length` on."""
        assert self.can_truncate(slot, length), (slot, length, self._lengths[slot])
        self._lengths[slot] = length
        if length == 0:
            self._written[slot] = self._oldest[slot] = 0

    def clear(self) -> None:
        """Empties all slots, whatever garbage lies in them."""
        for tensor in (self.hidden, *self._caches.values()):
            tensor.zero_()
        for lengths in (self._lengths, self._written, self._oldest):
            lengths[:] = [0] * self.count

    def snapshot(self, slot: int) -> SlotSnapshot:
        """A copy of the committed part: full layers whole, sliding ones the last window."""
        length = self._lengths[slot]
        layers = {
            index: cache[slot].index_select(2, self._places(index, length))
            for index, cache in self._caches.items()
        }
        return SlotSnapshot(length, layers)

    def restore(self, slot: int, snapshot: SlotSnapshot) -> None:
        """Holds afterwards: the slot's committed positions are those of `snapshot`."""
        length = snapshot.length
        for index, kept in snapshot.layers.items():
            self._caches[index][slot].index_copy_(2, self._places(index, length), kept)
        self._lengths[slot] = self._written[slot] = length
        self._oldest[slot] = max(0, length - self.window)

    @property
    def _full_ring(self) -> int:
        return max(cache.shape[3] for cache in self._caches.values())

    def _places(self, layer: int, length: int) -> Tensor:
        """Where the positions lie that rows from `length` on can see."""
        cache = self._caches[layer]
        first = max(0, length - self.window) if self._is_sliding[layer] else 0
        return torch.arange(first, length, device=cache.device) % cache.shape[3]


def buckets(slots: int) -> Sequence[int]:
    """Batch sizes a round is built for: powers of two, and all slots at once."""
    return sorted({min(2**power, slots) for power in range(slots.bit_length() + 1)})


def _aligned(positions: int) -> int:
    return -(-positions // ALIGNED) * ALIGNED
