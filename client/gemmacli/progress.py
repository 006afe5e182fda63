"""Shows how a pull goes: a bar for each half on a terminal, a line a phase elsewhere."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import click

from gemmacli.json_object import Json
from gemmacli.transfer import Transfer, Transfers, line
from gemmacli.wording import size

REDRAW_S = 0.06


class Screen(Protocol):
    """Where records of progress appear."""

    def show(self, record: Json) -> None:
        """A further record."""

    def finish(self) -> None:
        """No more records follow."""


def follow_pull(records: Iterable[Json], *, as_json: bool = False) -> Json:
    """All records were shown on stderr, or printed as they are, a line each, for `as_json`.

    Returns the last one.

    Raises:
        GemmaError: the daemon's, when the pull failed.
    """
    screen = screen_for(as_json=as_json)
    record: Json = {}
    try:
        for record in records:
            screen.show(record)
    finally:
        screen.finish()
    return record


def screen_for(*, as_json: bool = False) -> Screen:
    """The screen that suits what is to be shown and where."""
    if as_json:
        return JsonScreen()
    return BarScreen() if sys.stderr.isatty() else PhaseScreen()


class JsonScreen:
    """Records as they are, for programs."""

    def show(self, record: Json) -> None:
        """The record is a line on stdout."""
        click.echo(json.dumps(record, ensure_ascii=False))

    def finish(self) -> None:
        """Nothing is left to do."""


class PhaseScreen:
    """One line for each phase and each file, for logs and pipes."""

    def __init__(self) -> None:
        self._phase = ""
        self._files: set[str] = set()

    def show(self, record: Json) -> None:
        """A line when the phase or the file is a new one."""
        text = wording(record)
        if text and record.get("total"):
            if text not in self._files:
                click.echo(f"{text} ({_file(record)})", err=True)
            self._files.add(text)
        elif text and text != self._phase:
            click.echo(text, err=True)
        self._phase = text

    def finish(self) -> None:
        """Nothing is left to do."""


class BarScreen:
    """A line for each half of a pair, redrawn in place until a phase without bytes follows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._transfers = Transfers()
        self._drawn_s = 0.0
        self._height = 0  # lines on the screen that the next drawing replaces
        self._phase = ""

    def show(self, record: Json) -> None:
        """Its line, bars at most every 60 ms."""
        text, now = wording(record), self._clock()
        if record.get("total"):
            new = self._transfers.add(record, now)
            if new or now - self._drawn_s >= REDRAW_S:
                self._draw(now)
        elif text and text != self._phase:
            self.finish()
            click.echo(text, err=True)
        self._phase = text

    def finish(self) -> None:
        """The last state of the bars stays."""
        if self._transfers:
            self._draw(self._clock())
        self._transfers, self._height = Transfers(), 0

    def _draw(self, now: float) -> None:
        columns = shutil.get_terminal_size().columns
        lines = [f"{line(each, now, columns)}\x1b[K\n" for each in self._transfers]
        up = f"\x1b[{self._height}A" if self._height else ""
        click.echo(f"{up}\r{''.join(lines)}", nl=False, err=True)
        self._height, self._drawn_s = len(lines), now


def wording(record: Json) -> str:
    """A record's phase as people read it: which model, and why it was passed over."""
    parts = (record.get("status"), record.get("model"))
    text = " ".join(str(part) for part in parts if part)
    return f"{text}: {record['why']}" if record.get("why") else text


def _file(record: Json) -> str:
    seen = Transfer.of(record, 0.0)
    kind = f"{record['kind']}, " if record.get("kind") else ""
    if seen.resumed >= seen.total:
        return f"{kind}{size(seen.total)}, already here"
    here = f", {size(seen.resumed)} already here" if seen.resumed else ""
    return f"{kind}{size(seen.total)}{here}"
