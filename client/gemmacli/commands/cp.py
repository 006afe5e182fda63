"""`gemma cp`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option, model_argument
from gemmacli.results import Notice


@click.command()
@model_argument("source")
@click.argument("destination")
@json_option
@click.pass_obj
def command(app: App, source: str, destination: str) -> Notice:
    """Give a model a second name.

    Both names share their files; removing one leaves the other whole.
    """
    app.daemon().copy(source, destination)
    record = {"source": source, "destination": destination}
    return Notice(f"copied '{source}' to '{destination}'", record)
