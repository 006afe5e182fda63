"""`gemma gc`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option
from gemmacli.results import Notice
from gemmad.api.errors import BadRequest


@click.command()
@click.option("--yes", is_flag=True, help="Remove without asking.")
@json_option
@click.pass_obj
def command(app: App, yes: bool) -> Notice:
    """Remove files that no model needs.

    Shows first what would be removed, and asks. With --json nothing is asked: without --yes it
    only shows.
    """
    from gemmacli.listings import garbage

    client = app.daemon()
    found = client.collect_garbage(dry_run=True)
    if not found.get("blobs") or (app.as_json and not yes):
        return Notice(garbage(found), found)
    if not yes:
        click.echo(garbage(found), err=True)
        _ask()
    removed = client.collect_garbage(dry_run=False)
    return Notice(garbage(removed), removed)


def _ask() -> None:
    try:
        agreed = click.confirm("Remove them?", err=True)
    except click.Abort:  # nobody is there to answer
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise BadRequest("Nothing was removed.", fix="To remove without asking: gemma gc --yes")
