"""Reaches the daemon, which is started when none runs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from gemmacli.client import DaemonClient
from gemmacli.transport import NotRunning, endpoint
from gemmad.api.errors import DaemonUnreachable
from gemmad.api.version import VERSION

if TYPE_CHECKING:
    from gemmacli.results import Versions


def connect(env: Mapping[str, str], *, start: bool = True) -> DaemonClient:
    """A client of a daemon that has answered; warns once when its version is another.

    Raises:
        DaemonUnreachable: nothing answers, or the daemon could not be started.
    """
    client = DaemonClient(endpoint(env))
    try:
        version = client.version()
    except NotRunning:
        if not (start and client.where.is_local):
            raise
        from gemmacli.starting import start_daemon  # 10 ms, and rarely needed

        version = start_daemon(client, env)
    if version != VERSION:
        warning = f"Warning: this is gemma {VERSION}, the running daemon is {version}."
        click.echo(f"{warning} Restart the daemon.", err=True)
    return client


def versions(env: Mapping[str, str]) -> "Versions":
    """The client's version, and the daemon's if one runs."""
    from gemmacli.results import Versions

    try:
        return Versions(VERSION, DaemonClient(endpoint(env)).version())
    except DaemonUnreachable:
        return Versions(VERSION, None)
