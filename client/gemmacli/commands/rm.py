"""`gemma rm`."""

import click

from gemmacli.app import App
from gemmacli.options import model_argument


@click.command()
@model_argument("models", nargs=-1, required=True)
@click.pass_obj
def command(app: App, models: tuple[str, ...]) -> None:
    """Remove models from the store.

    Stops at the first one that cannot be removed; those before it are gone.
    """
    daemon = app.daemon()
    for model in models:
        daemon.delete(model)
        click.echo(f"deleted '{model}'")
