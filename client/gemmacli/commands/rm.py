"""`gemma rm`."""

import click

from gemmacli.app import App
from gemmacli.client import DaemonClient
from gemmacli.options import json_option, model_argument
from gemmacli.results import Notice


@click.command()
@model_argument("models", nargs=-1)
@click.option("--partial", is_flag=True, help="Remove downloads that are not finished.")
@json_option
@click.pass_obj
def command(app: App, models: tuple[str, ...], partial: bool) -> Notice | None:
    """Remove models from the store.

    Stops at the first one that cannot be removed; those before it are gone. Files that another
    model needs stay.
    """
    if not models and not partial:
        raise click.UsageError("Remove which model? Name one, or use --partial.")
    daemon = app.daemon()
    for model in models:
        daemon.delete(model)
        if not app.as_json:
            click.echo(f"deleted '{model}'")
    freed = _remove_partials(daemon) if partial else None
    record = {"deleted": list(models)} | ({} if freed is None else {"partial_bytes": freed[1]})
    if freed is None:
        return Notice("", record) if app.as_json else None
    return Notice(_told(*freed), record)


def _remove_partials(daemon: DaemonClient) -> tuple[int, int]:
    count = len(daemon.partials().get("partials") or ())
    return count, int(daemon.remove_partials().get("bytes") or 0)


def _told(count: int, freed: int) -> str:
    from gemmacli.wording import plural, size

    if not count:
        return "No download is unfinished."
    return f"deleted {plural(count, 'unfinished download')}, {size(freed)}"
