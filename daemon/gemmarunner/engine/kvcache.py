"""Holds one sequence's keys and values, and rolls back what was drafted and rejected.

```
full layer     [K and V heads, capacity, head_dim]    position p lies in slot p
sliding layer  [K and V heads, slots, head_dim]       position p lies in slot p - base
```
Sliding layers hold the last `window` positions, the rows of one forward and some spare slots.
When the slots run out, the live window moves to the front (`base` grows): keys stay contiguous and
in order, so that attention and drafter read plain slices, and neither a rejected draft nor a
prefill chunk ever overwrites a live key. The move costs one copy of the window per half a window of
tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Slots come in, and windows move by, multiples of this, so that a row's keys can be read from one
# multiple to another: its result then depends on its position, not on what the cache went through.
ALIGNED = 64


class LayerShape(Protocol):
    """What the cache must know of a layer."""

    @property
    def kind(self) -> str: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def donor(self) -> int | None: ...


class CacheShape(Protocol):
    """What the cache must know of a model."""

    @property
    def layers(self) -> Sequence[LayerShape]: ...
    @property
    def window(self) -> int: ...


class KeysValues(NamedTuple):
    """Views into the cache; valid until the next forward."""

    keys: Tensor  # [1, kv_heads, positions, head_dim]
    values: Tensor  # [1, kv_heads, positions, head_dim]


class KVSnapshot(NamedTuple):
    """A copy of what a cache holds at its committed positions."""

    length: int
    sliding_base: int
    stores: dict[int, Tensor]  # by layer: [K and V heads, slots in use, head_dim]

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(store.nbytes for store in self.stores.values())


class KVCache:
    """Keys and values of one sequence.

    `length` is the number of committed positions: written by the target's forward and by
    `truncate`, read by everyone; what lies beyond it is dead.
    """

    def __init__(
        self,
        config: CacheShape,
        capacity: int,
        max_rows: int,
        device: torch.device | str,
        dtype: torch.dtype,
        layer_devices: Sequence[torch.device] | None = None,
    ) -> None:
        """`layer_devices`: where each layer's keys and values are, if not all on `device`."""
        assert capacity > 0
        assert max_rows > 0
        self.capacity = capacity
        self.max_rows = max_rows
        self.window = config.window
        self.length = 0
        self.sliding_base = 0  # position in slot 0 of every sliding layer
        spare = ALIGNED + config.window // 2
        full_slots = _aligned(capacity)
        self.sliding_slots = min(full_slots, _aligned(config.window + max_rows + spare))
        self._stores: dict[int, Tensor] = {}  # by layer, for those that own K/V
        self._views: dict[int, KeysValues] = {}
        self._is_sliding = [layer.kind == "sliding" for layer in config.layers]
        for index, layer in enumerate(config.layers):
            if layer.donor is not None:
                continue
            slots = self.sliding_slots if self._is_sliding[index] else full_slots
            shape = (2 * layer.kv_heads, slots, layer.head_dim)
            place = device if layer_devices is None else layer_devices[index]
            store = torch.zeros(shape, device=place, dtype=dtype)
            self._stores[index] = store
            self._views[index] = KeysValues(*store.unsqueeze(0).chunk(2, 1))

    @property
    def nbytes(self) -> int:
        """Bytes held, from creation to the end."""
        return sum(store.nbytes for store in self._stores.values())

    def nbytes_of(self, begin: int, end: int) -> int:
        """Bytes of layers begin..end-1."""
        return sum(s.nbytes for index, s in self._stores.items() if begin <= index < end)

    def can_truncate(self, length: int) -> bool:
        """Whether `truncate(length)` would leave every key that the next row has to see."""
        reaches_back = length - self.window >= self.sliding_base or self.sliding_base == 0
        return 0 <= length <= self.length and (reaches_back or length == 0)

    def truncate(self, length: int) -> None:
        """Drops all positions from `length` on.

        The rows of the last forward can always be dropped, and so can everything (`length` 0);
        further back only as far as the sliding layers still hold a whole window.
        """
        assert self.can_truncate(length), (length, self.length, self.sliding_base)
        self.length = length
        if length == 0:
            self.sliding_base = 0

    def make_room(self, rows: int) -> None:
        """Holds afterwards: `rows` positions from `length` on have a slot in every layer."""
        assert 0 < rows <= self.max_rows, (rows, self.max_rows)
        assert self.length + rows <= self.capacity, (self.length, rows, self.capacity)
        if self.length + rows - self.sliding_base <= self.sliding_slots:
            return
        base = max(0, self.length - self.window) // ALIGNED * ALIGNED
        begin, end = base - self.sliding_base, self.length - self.sliding_base
        for index, store in self._stores.items():
            if self._is_sliding[index]:
                store[:, : end - begin] = store[:, begin:end].clone()  # they may overlap
        self.sliding_base = base

    def write(self, layer: int, slot: int, rows: Tensor) -> None:
        """Puts rows of K heads, then V heads [rows, 2 * kv_heads, head_dim] at `slot` on."""
        self._stores[layer].narrow(1, slot, rows.shape[0]).copy_(rows.transpose(0, 1))

    def read(self, layer: int, slot: int, count: int) -> KeysValues:
        """Views of `count` slots from `slot` on."""
        keys, values = self._views[layer]
        return KeysValues(keys.narrow(2, slot, count), values.narrow(2, slot, count))

    def store(self, layer: int) -> Tensor:
        """All of a layer's own K heads, then V heads: [2 * kv_heads, slots, head_dim]."""
        return self._stores[layer]

    def seen(self, layer: int) -> tuple[int, int]:
        """First slot and number of the positions that the row at `length - 1` of this layer sees.

        All of them are committed.
        """
        if not self._is_sliding[layer]:
            return 0, self.length
        count = min(self.window, self.length)
        return self.length - count - self.sliding_base, count

    def committed(self, layer: int) -> KeysValues:
        """Views of what `seen` names."""
        return self.read(layer, *self.seen(layer))

    def snapshot(self) -> KVSnapshot:
        """A copy of all committed positions that any layer still holds."""
        stores = {
            index: store[:, : self._used(index)].clone() for index, store in self._stores.items()
        }
        return KVSnapshot(self.length, self.sliding_base, stores)

    def restore(self, snapshot: KVSnapshot) -> None:
        """Holds afterwards what a cache of this shape held when it made `snapshot`."""
        for index, store in snapshot.stores.items():
            self._stores[index][:, : store.shape[1]] = store
        self.length, self.sliding_base = snapshot.length, snapshot.sliding_base

    def _used(self, layer: int) -> int:
        return self.length - (self.sliding_base if self._is_sliding[layer] else 0)


def _aligned(slots: int) -> int:
    return -(-slots // ALIGNED) * ALIGNED
