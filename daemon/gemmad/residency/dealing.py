"""Deals a target's layers to GPUs, contiguous and in order, by the room that each has; pure.

The last device has all that is not a layer, and every layer that cannot be elsewhere. If any deal
fits, one is found, over as few devices as do; among those, all are filled to the same share.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, combinations

from gemmad.memory.split import Deal, SplitBytes
from gemmad.residency.budgets import Kind, Situation, Takes
from gemmad.residency.gifts import most_of

_HALVINGS = 20  # of the share to which devices are filled


def deal(pair: SplitBytes, rooms: Mapping[str, int]) -> Deal | None:
    """The best deal over devices with so much room; None: no deal fits."""
    dealer = _Dealer(pair)
    order = dealer.order(rooms)
    return dealer.even(order, rooms) if order else None


def nearest(pair: SplitBytes, rooms: Mapping[str, int]) -> Deal | None:
    """Where no deal fits, one that lacks little; None: more than one device would not help."""
    if len(rooms) < 2:
        return None
    order = sorted(rooms, key=lambda id: rooms[id])
    found = _Dealer(pair).even(order, {id: max(1, rooms[id]) for id in order})
    return found if len(found.devices) > 1 else None


class _Dealer:
    def __init__(self, pair: SplitBytes) -> None:
        self._beside = pair.beside
        self._all_else = pair.tables + pair.drafter
        self._movable = pair.movable
        # By number: bytes of so many of the first layers.
        self._sums = list(accumulate((sum(layer) for layer in pair.layers), initial=0))

    def order(self, rooms: Mapping[str, int]) -> list[str]:
        """As few devices as have room for everything, in an order in which they do; or none.

        `reached`: for each set of devices the most of the first layers that it holds, in its best
        order. The more layers are before, the fewer are left for the last: the most is the best.
        """
        reached: dict[frozenset[str], tuple[int, list[str]]] = {frozenset(): (0, [])}
        for size in range(1, len(rooms)):
            for chosen in map(frozenset, combinations(rooms, size)):
                reaches = [
                    self._with_next(*reached[chosen - {id}], id, rooms) for id in sorted(chosen)
                ]
                begin, before = reached[chosen] = max(reaches)
                for last in (id for id in rooms if id not in chosen):
                    if self._last_bytes(last, begin) <= rooms[last]:
                        return [*before, last]
        return []

    def _with_next(
        self, begin: int, before: list[str], id: str, rooms: Mapping[str, int]
    ) -> tuple[int, list[str]]:
        return self._end(begin, rooms[id] - self._beside[id].before), [*before, id]

    def _end(self, begin: int, room: int) -> int:
        """One past the last layer that fits into `room` from `begin` on."""
        most = self._sums[begin] + max(0, room)
        return bisect_right(self._sums, most, begin, self._movable + 1) - 1

    def _last_bytes(self, id: str, begin: int) -> int:
        layers = self._sums[-1] - self._sums[begin]
        return layers + self._all_else + self._beside[id].last

    def even(self, order: Sequence[str], rooms: Mapping[str, int]) -> Deal:
        """In this order, every device filled to about the same share of its room."""
        least, most = 0.0, 1.0
        while not self._fits(order, rooms, most):
            least, most = most, 2 * most
        for _ in range(_HALVINGS):
            middle = (least + most) / 2
            least, most = (least, middle) if self._fits(order, rooms, middle) else (middle, most)
        ends = list(self._ends(order, rooms, most))
        counts = tuple(end - begin for begin, end in zip([0, *ends], ends, strict=False))
        return _without_empty(order, (*counts, len(self._sums) - 1 - ends[-1]))

    def _fits(self, order: Sequence[str], rooms: Mapping[str, int], share: float) -> bool:
        *_, begin = self._ends(order, rooms, share)
        return self._last_bytes(order[-1], begin) <= share * rooms[order[-1]]

    def _ends(self, order: Sequence[str], rooms: Mapping[str, int], share: float) -> Iterator[int]:
        """Where each device but the last ends, when it is filled to `share` of its room."""
        end = 0
        for id in order[:-1]:
            end = self._end(end, int(share * rooms[id]) - self._beside[id].before)
            yield end


def levels(situation: Situation) -> tuple[Takes, ...]:
    """What each memory has room for: now, when those have gone who are on their way, and when
    the idle have gone too, or everybody.
    """
    not_busy = tuple(kind for kind in Kind if kind is not Kind.DRAIN)
    now = {room.id: room.left for room in situation.rooms}
    coming = {room.id: room.left + room.coming for room in situation.rooms}
    given = (
        {id: left + most_of(situation, id, kinds) for id, left in coming.items()}
        for kinds in (not_busy, tuple(Kind))
    )
    return (now, coming, *given)


def _without_empty(order: Sequence[str], counts: tuple[int, ...]) -> Deal:
    kept = [(id, n) for id, n in zip(order, counts, strict=True) if n or id == order[-1]]
    return Deal(tuple(id for id, _ in kept), tuple(n for _, n in kept))
