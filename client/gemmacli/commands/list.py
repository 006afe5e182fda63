"""`gemma list`."""

import click

from gemmacli.app import App
from gemmacli.json_object import Json
from gemmacli.options import json_option
from gemmacli.results import Offered, Stored


@click.command()
@click.argument("prefix", default="")
@click.option("--available", is_flag=True, help="List what the catalogue offers instead.")
@json_option
@click.pass_obj
def command(app: App, prefix: str, available: bool) -> Stored | Offered:
    """List the models in the store.

    With PREFIX, only those whose names begin with it; of the catalogue, those in whose name or
    description it stands.
    """
    daemon = app.daemon()
    if available:
        return Offered(daemon.available(prefix))
    return Stored(_narrowed(daemon.models(), prefix))


def _narrowed(reply: Json, prefix: str) -> Json:
    wanted = [
        model for model in reply["models"] if model["name"].lower().startswith(prefix.lower())
    ]
    return {**reply, "models": wanted}
