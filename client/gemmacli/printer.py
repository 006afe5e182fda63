"""Prints an answer piece by piece: the answer on stdout, thinking dim on stderr."""

import shutil
import sys

import click

from gemmacli.records import Piece
from gemmacli.wrap import WordWrap


class AnswerPrinter:
    """A screen for one answer."""

    def __init__(self, *, hide_thinking: bool = False, word_wrap: bool = True) -> None:
        self._hide_thinking = hide_thinking
        self._thinking = False
        self._ends_line = True
        self._wrap = WordWrap(_width()) if word_wrap and sys.stdout.isatty() else None

    def show(self, part: Piece) -> None:
        """A further piece, at once."""
        if part.thinking and not self._hide_thinking:
            self._think(part.thinking)
        if part.text:
            self._stop_thinking()
            self._print(self._wrap.feed(part.text) if self._wrap else part.text)

    def finish(self) -> None:
        """The answer ends its last line."""
        self._stop_thinking()
        if self._wrap:
            self._print(self._wrap.flush())
        if not self._ends_line:
            self._print("\n")

    def _think(self, text: str) -> None:
        if not self._thinking:
            self._thinking = True
            _dim("Thinking...\n")
        _dim(text)

    def _stop_thinking(self) -> None:
        if self._thinking:
            self._thinking = False
            _dim("\n...done thinking.\n\n")

    def _print(self, text: str) -> None:
        if text:
            self._ends_line = text.endswith("\n")
            click.echo(text, nl=False)


class SilentScreen:
    """A screen that shows nothing, for JSON."""

    def show(self, part: Piece) -> None:
        """Nothing appears."""

    def finish(self) -> None:
        """Nothing appears."""


def _dim(text: str) -> None:
    click.echo(click.style(text, dim=True), nl=False, err=True)


def _width() -> int:
    return max(shutil.get_terminal_size().columns - 1, 20)
