"""Turns the records of a stream into an answer, showing each piece as it comes."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Protocol, cast

from gemmacli.json_object import Json
from gemmacli.records import Answer, Piece, piece


class Screen(Protocol):
    """Where pieces of an answer appear."""

    def show(self, part: Piece) -> None:
        """A further piece."""

    def finish(self) -> None:
        """No more pieces follow."""


class Collector:
    """Gathers pieces into an answer; what it holds is valid at any moment, also when broken off."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._first: float | None = None
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._final: Json | None = None

    def add(self, part: Piece) -> None:
        """Takes a piece in."""
        if self._first is None and (part.text or part.thinking):
            self._first = self._clock() - self._start
        self._text.append(part.text)
        self._thinking.append(part.thinking)
        self._final = part.final

    @property
    def answer(self) -> Answer:
        """All that has come so far."""
        return Answer("".join(self._text), "".join(self._thinking), self._final, self._first)


def follow(records: Iterator[Json], screen: Screen, collector: Collector) -> Answer:
    """The whole answer, shown on the way; the stream is closed however this ends.

    Raises:
        GemmaError: the daemon's, in the middle of the stream too.
    """
    try:
        with closing(cast("Generator[Json]", records)):
            for record in records:
                part = piece(record)
                collector.add(part)
                screen.show(part)
    finally:
        screen.finish()
    return collector.answer
