"""Entry point of a runner: `python -m gemmarunner --fd N`, N being its end of a socket pair."""

import argparse
import faulthandler
import logging
import os
import socket
import sys
from collections.abc import Callable

from gemmad.wire import Load
from gemmarunner.channel import Channel
from gemmarunner.harden import harden
from gemmarunner.serve import Server
from gemmarunner.serving import Served


def main() -> None:
    """Runs until the daemon says shutdown or goes away; does not return."""
    parser = argparse.ArgumentParser(prog="gemmarunner", description="Runs one pair for gemmad.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the daemon")
    connection = socket.socket(fileno=parser.parse_args().fd)
    connection.set_inheritable(False)
    harden(connection)
    faulthandler.enable()  # a crash in native code leaves a traceback in the log
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    code = Server(Channel(connection), _compose).run()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # torch's own ending takes a second and has nothing to save


def _compose(load: Load, report: Callable[[str, int, int], None]) -> Served:
    """`loading.compose`, imported now: torch takes seconds, and the daemon has been greeted."""
    report("import", 0, 0)
    _let_threads_sleep()
    from gemmarunner.renderer import TemplateRenderer

    renderer = TemplateRenderer()  # its process starts while this one imports torch
    from gemmarunner.loading import compose

    return compose(load, report, renderer)


def _let_threads_sleep() -> None:
    """Torch's threads, read when it is imported, sleep between parallel regions and don't spin.

    Spinning gains a little on an idle machine. Where another process wants a core (client and
    daemon do), threads take turns at it, and each turn lasts a time slice.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


if __name__ == "__main__":
    main()
