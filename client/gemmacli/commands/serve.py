"""`gemma serve`: this process becomes the daemon."""

import os
import sys

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> None:
    """Run the daemon in the foreground.

    ARGUMENTS are handed to gemmad as they are. Ctrl-C stops it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "gemmad", *arguments])  # noqa: S606 - no shell
