"""How far the parts of a pair are, how fast they come and how long they will take; pure.

Files of one part (target, drafter, ...) count together. `resumed` in a record is what an earlier
pull brought of its file, or all of it when the store had it.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gemmacli.json_object import Json
from gemmacli.wording import duration, percent, size

BAR_CELLS = 24
TITLE_CELLS = 10
WINDOW_S = 10.0  # the rate is that of the last seconds
FEWEST_S = 1.0  # no rate is told of a shorter time


@dataclass(slots=True)
class Transfer:
    """The files of one part, added up."""

    title: str
    resumed: int = 0
    files: dict[str, tuple[int, int]] = field(default_factory=dict)  # completed and total
    seen: deque[tuple[float, int]] = field(default_factory=deque)  # when, and completed by then

    @classmethod
    def of(cls, record: Json, now: float) -> "Transfer":
        """A part of which this is the first record."""
        kind = str(record.get("kind") or record.get("status") or "")
        transfer = cls("target" if kind == "document" else kind)  # its licence and card
        transfer.add(record, now)
        return transfer

    def add(self, record: Json, now: float) -> None:
        """A further record of the part."""
        key = str(record.get("digest") or record.get("status"))
        completed, total = int(record.get("completed") or 0), int(record["total"])
        if key not in self.files:
            self.resumed += int(record.get("resumed") or 0)
            # What was here before did not come at any rate.
            self.seen = deque((when, done + completed) for when, done in self.seen)
        self.files[key] = (min(completed, total), total)
        self.seen.append((now, self.completed))
        while len(self.seen) > 2 and now - self.seen[0][0] > WINDOW_S:
            self.seen.popleft()

    @property
    def completed(self) -> int:
        """Bytes that are here."""
        return sum(completed for completed, _ in self.files.values())

    @property
    def total(self) -> int:
        """Bytes of all files heard of."""
        return sum(total for _, total in self.files.values())

    def rate(self, now: float) -> float | None:
        """Bytes a second of late; None before there was time to measure."""
        began, before = self.seen[0]
        return (self.completed - before) / (now - began) if now - began >= FEWEST_S else None


class Transfers:
    """The parts in the order in which they were heard of."""

    def __init__(self) -> None:
        self._parts: dict[str, Transfer] = {}

    def __iter__(self) -> Iterator[Transfer]:
        return iter(self._parts.values())

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, record: Json, now: float) -> bool:
        """Count the record in; whether it began a part."""
        transfer = Transfer.of(record, now)
        if transfer.title in self._parts:
            self._parts[transfer.title].add(record, now)
            return False
        self._parts[transfer.title] = transfer
        return True


def line(transfer: Transfer, now: float, columns: int) -> str:
    """A part in one line that fits: bar, share, bytes, rate, time left, what was here before."""
    done, total = transfer.completed, transfer.total
    share = done / total if total else 1.0
    parts = [f"{transfer.title:<{TITLE_CELLS}} {bar(share)} {percent(share):>4}"]
    parts.append(f"{size(done)}/{size(total)}")
    if done < total and (rate := transfer.rate(now)):
        parts.append(f"{size(int(rate))}/s, {duration(round((total - done) / rate))} left")
    if transfer.resumed:
        parts.append(f"({size(transfer.resumed)} already here)")
    return " ".join(parts)[: columns - 1]


def bar(share: float) -> str:
    """A bar of fixed width, filled to `share`."""
    filled = round(share * BAR_CELLS)
    return f"▕{'█' * filled}{' ' * (BAR_CELLS - filled)}▏"
