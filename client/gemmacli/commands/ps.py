"""`gemma ps`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option
from gemmacli.results import Running


@click.command()
@json_option
@click.pass_obj
def command(app: App) -> Running:
    """List the models that are loaded, and what takes memory.

    Target and drafter stand apart; a narrow terminal leaves columns out, --json none. Starts no
    daemon: without one, nothing is loaded.
    """
    from gemmacli.transport import NotRunning

    try:
        return Running(app.daemon(start=False).running())
    except NotRunning:
        return Running(None)
