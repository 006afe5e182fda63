"""`gemma list`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option
from gemmacli.results import Stored


@click.command()
@click.argument("prefix", default="")
@json_option
@click.pass_obj
def command(app: App, prefix: str) -> Stored:
    """List the models in the store.

    With PREFIX, only those whose names begin with it.
    """
    reply = app.daemon().models()
    wanted = [
        model for model in reply["models"] if model["name"].lower().startswith(prefix.lower())
    ]
    return Stored({**reply, "models": wanted})
