"""Entry point: prints the program's help at once, and hands everything else to click."""

import io
import os
import sys

from gemmacli.catalogue import program_help


def main() -> None:
    """Run `gemma` with this process's arguments; exits."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        # Written here, since importing click alone takes 50 ms.
        _write(program_help())
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where a program runs without a console
            stream.reconfigure(errors="replace")  # a poor terminal gets "?", not a traceback
    from gemmacli.commandline import cli

    cli(prog_name="gemma")


def _write(text: str) -> None:
    try:
        os.write(1, text.encode())
    except BrokenPipeError:
        sys.exit(1)  # who reads has seen enough
