"""What every command receives: the environment, the output form, and a way to the daemon."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gemmacli.client import DaemonClient


@dataclass(slots=True)
class App:
    """One invocation of `gemma`; options write it, commands and the renderer read it."""

    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    as_json: bool = False

    def daemon(self, *, start: bool = True) -> "DaemonClient":
        """A client whose daemon has answered; starts one if none runs and `start` allows it.

        Raises:
            DaemonUnreachable: nothing answers, or the daemon could not be started.
        """
        from gemmacli.reaching import connect

        return connect(self.env, start=start)
