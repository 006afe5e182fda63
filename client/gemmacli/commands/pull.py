"""`gemma pull`."""

import json
from collections.abc import Iterator

import click

from gemmacli.app import App
from gemmacli.options import json_option, quantize_option
from gemmacli.records import Json


@click.command()
@click.argument("model")
@quantize_option("How its weights are packed whenever it is loaded.")
@json_option
@click.pass_obj
def command(app: App, model: str, quantize: str | None) -> None:
    """Bring a model and its drafter into the store.

    With --json every progress record is one line on stdout.
    """
    from gemmacli.progress import follow_pull

    records = app.daemon().pull(model, quantize)
    if app.as_json:
        _print_lines(records)
    else:
        follow_pull(records)


def _print_lines(records: Iterator[Json]) -> None:
    for record in records:
        click.echo(json.dumps(record, ensure_ascii=False))
