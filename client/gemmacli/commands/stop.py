"""`gemma stop`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option, model_argument
from gemmacli.results import Notice


@click.command()
@model_argument()
@json_option
@click.pass_obj
def command(app: App, model: str) -> Notice:
    """Unload a model.

    Its memory is free when this returns. Starts no daemon.
    """
    app.daemon(start=False).unload(model)
    return Notice(f"unloaded '{model}'", {"unloaded": model})
