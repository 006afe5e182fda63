"""Entry point of a runner: `python -m gemmarunner --fd N`, N being its end of a socket pair."""

import argparse
import contextlib
import faulthandler
import logging
import os
import socket
import sys

from gemmad.api.errors import GemmaError
from gemmad.wire import Load
from gemmarunner.channel import Channel
from gemmarunner.harden import harden
from gemmarunner.renderer import TemplateRenderer
from gemmarunner.serve import Report, Server
from gemmarunner.serving import Served

_SWITCH_S = 0.0005  # that one thread keeps Python while another wants it: rounds take 1 to 5 ms


def main() -> None:
    """Runs until the daemon says shutdown or goes away; does not return."""
    parser = argparse.ArgumentParser(prog="gemmarunner", description="Runs one pair for gemmad.")
    parser.add_argument("--fd", type=int, required=True, help="inherited socket to the daemon")
    connection = socket.socket(fileno=parser.parse_args().fd)
    connection.set_inheritable(False)
    harden(connection)
    sys.setswitchinterval(_SWITCH_S)
    faulthandler.enable()  # a crash in native code leaves a traceback in the log
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    code = Server(Channel(connection), Composer()).run()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # torch's own ending takes a second and has nothing to save


class Composer:
    """Imports torch only when told to: that takes seconds, and the daemon is greeted before."""

    def __init__(self) -> None:
        self._renderer: TemplateRenderer | None = None  # made once, by `prepare`

    def prepare(self) -> None:
        """Torch and our own modules are imported, and the template process has begun to start."""
        if self._renderer is not None:
            return
        _let_threads_sleep()
        self._renderer = TemplateRenderer()  # its process starts while this one imports torch
        import gemmarunner.loading  # noqa: F401

        with contextlib.suppress(GemmaError):  # it will be met again, by who can be told
            self._renderer.render("", {})  # the process has started

    def compose(self, load: Load, report: Report) -> Served:
        """`loading.compose`, imported now unless that is done."""
        report("import", 0, 0)
        self.prepare()
        assert self._renderer is not None
        from gemmarunner.loading import compose

        return compose(load, report, self._renderer)


def _let_threads_sleep() -> None:
    """Torch's threads, read when it is imported, sleep between parallel regions and don't spin.

    Spinning gains a little on an idle machine. Where another process wants a core (client and
    daemon do), threads take turns at it, and each turn lasts a time slice.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


if __name__ == "__main__":
    main()
