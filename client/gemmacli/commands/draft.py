"""`gemma draft`: the drafter of a model that is in the store."""

from pathlib import Path

import click

from gemmacli.app import App
from gemmacli.options import json_option, model_argument
from gemmacli.results import Notice


@click.group()
def command() -> None:
    """Give a model another drafter, or none.

    The target stays as it is; a loaded model takes the change at its next load.
    """


@command.command(name="set")
@model_argument()
@click.argument("ref")
@json_option
@click.pass_obj
def set_drafter(app: App, model: str, ref: str) -> None:
    """Fetch the drafter REF and attach it.

    REF is hf.co/OWNER/REPO, a path, or a model of the store whose drafter it shall be. One that
    does not belong to the target is refused.
    """
    from gemmacli.local_files import resolve
    from gemmacli.pulling import follow_to_model

    client = app.daemon()
    place = resolve("REF", (ref,), Path.cwd())
    assert place is not None  # there is one reference
    wanted = str(place.single or place.reference)
    follow_to_model(client, model, client.attach_drafter(model, wanted), as_json=app.as_json)


@command.command()
@model_argument()
@json_option
@click.pass_obj
def rm(app: App, model: str) -> Notice:
    """Detach the drafter; the model answers from its target alone."""
    app.daemon().detach_drafter(model)
    return Notice(f"'{model}' has no drafter now", {"model": model, "drafter": None})
