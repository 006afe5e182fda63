"""Shows the progress of a pull: a bar on a terminal, one line a phase elsewhere."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable

import click

from gemmacli.records import Json
from gemmacli.wording import size

BAR_CELLS = 24
REDRAW_S = 0.06


def follow_pull(records: Iterable[Json]) -> None:
    """All records were shown on stderr.

    Raises:
        GemmaError: the daemon's, when the pull failed.
    """
    screen = BarScreen() if sys.stderr.isatty() else PhaseScreen()
    try:
        for record in records:
            screen.show(record)
    finally:
        screen.finish()


class PhaseScreen:
    """One line for each phase, for logs and pipes."""

    def __init__(self) -> None:
        self._phase: str | None = None

    def show(self, record: Json) -> None:
        """A line when the phase is a new one."""
        phase = str(record.get("status", ""))
        if phase and phase != self._phase:
            click.echo(
                f"{phase} ({size(record['total'])})" if record.get("total") else phase, err=True
            )
        self._phase = phase

    def finish(self) -> None:
        """Nothing is left to do."""


class BarScreen:
    """One line for each phase, redrawn in place while it lasts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._phase: str | None = None
        self._since = self._drawn = clock()
        self._line = ""

    def show(self, record: Json) -> None:
        """The phase's line, at most every 60 ms."""
        now = self._clock()
        phase = str(record.get("status", ""))
        new = phase != self._phase
        if new:
            self.finish()
            self._phase, self._since = phase, now
        self._line = line(record, now - self._since, shutil.get_terminal_size().columns)
        if new or now - self._drawn >= REDRAW_S:
            self._draw(now)

    def finish(self) -> None:
        """The last state of the phase stays, on a line of its own."""
        if self._line:
            self._draw(self._clock())
            click.echo(err=True)
            self._line = ""

    def _draw(self, now: float) -> None:
        self._drawn = now
        click.echo(f"\r{self._line}\x1b[K", nl=False, err=True)


def line(record: Json, elapsed_s: float, columns: int) -> str:
    """A phase in one line that fits: status, bar, share, bytes and rate."""
    status = str(record.get("status", ""))
    total, done = int(record.get("total") or 0), int(record.get("completed") or 0)
    if not total:
        return status[: columns - 1]
    share = min(done / total, 1.0)
    rate = f" {size(int(done / elapsed_s))}/s" if elapsed_s >= 1 and done < total else ""
    text = f"{status} {bar(share)} {share:4.0%} {size(done)}/{size(total)}{rate}"
    return text[: columns - 1]


def bar(share: float) -> str:
    """A bar of fixed width, filled to `share`."""
    filled = round(share * BAR_CELLS)
    return f"▕{'█' * filled}{' ' * (BAR_CELLS - filled)}▏"
