"""What every command receives: the environment, the output form, and a way to the daemon."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemmacli.client import DaemonClient


class App:
    """One invocation of `gemma`; options write it, commands and the renderer read it."""

    def __init__(self, env: Mapping[str, str] = os.environ) -> None:
        self.env = env
        self.as_json = False

    def daemon(self, *, start: bool = True) -> "DaemonClient":
        """A client whose daemon has answered; starts one if none runs and `start` allows it.

        Raises:
            DaemonUnreachable: nothing answers, or the daemon could not be started.
        """
        from gemmacli.reaching import connect

        return connect(self.env, start=start)
