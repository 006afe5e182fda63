"""Entry point: help and list are printed at once, everything else is handed to click."""

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
    if sys.argv[1:] in (["list"], ["ls"]) and _listed():
        return
    from gemmacli.commandline import cli

    cli(prog_name="gemma")


def _listed() -> bool:
    from gemmacli.quick import list_models

    try:
        return list_models(os.environ)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left unwritten goes there at exit
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _write(text: str) -> None:
    try:
        os.write(1, text.encode())
    except BrokenPipeError:
        sys.exit(1)  # who reads has seen enough
