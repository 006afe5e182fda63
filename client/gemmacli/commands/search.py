"""`gemma search`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option
from gemmacli.results import Offered
from gemmad.api.errors import GemmaError


@click.command()
@click.argument("text", default="")
@json_option
@click.pass_obj
def command(app: App, text: str) -> Offered:
    """Find models that can be pulled.

    First those of the catalogue, then, with TEXT, what the hub has. FITS says whether this
    computer has the memory for the pair.
    """
    client = app.daemon()
    found = client.available(text)["models"]
    if text:
        try:
            found += client.search(text)["models"]
        except GemmaError as error:
            click.echo(f"The hub could not be searched: {error}", err=True)
    return Offered({"models": found})
