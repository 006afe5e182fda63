"""Reads the part of a prompt that comes through a pipe."""

import select
import sys

import click

PATIENCE_S = 1.0


def read_prompt(words: tuple[str, ...]) -> str | None:
    """Piped text, then the words; None when a terminal is there to ask, and no words are given."""
    prompt = " ".join(words)
    if sys.stdin is None or sys.stdin.closed:
        return prompt
    if sys.stdin.isatty():
        return prompt if words or not sys.stdout.isatty() else None
    piped = _read()
    return "\n\n".join(part for part in (piped.strip("\n"), prompt) if part)


def _read() -> str:
    """All of standard input; says so when a pipe stays silent, since this looks like a hang."""
    if not _ready():
        click.echo("Reading more of the prompt from standard input, up to its end ...", err=True)
    return sys.stdin.buffer.read().decode(errors="replace")


def _ready() -> bool:
    try:
        readable, _, _ = select.select([sys.stdin], [], [], PATIENCE_S)
    except (OSError, ValueError):  # no real file: a test's stream, or a pipe on Windows
        return True
    return bool(readable)
