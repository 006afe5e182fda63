"""`gemma import`."""

from collections.abc import Iterator
from pathlib import Path

import click

from gemmacli.app import App
from gemmacli.json_object import Json
from gemmacli.options import json_option
from gemmacli.results import Notice
from gemmacli.wording import plural


@click.command()
@click.argument("source", type=click.Choice(("ollama",)))
@click.argument("model", metavar="[NAME]", default="")
@click.option(
    "--store",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where that program keeps its models, if not where it usually does.",
)
@json_option
@click.pass_obj
def command(app: App, source: str, model: str, store: Path | None) -> Notice | None:
    """Take models over from another program's store.

    All that can run here, or NAME alone. Files are linked, not copied, where the disk allows it;
    the other program keeps its own.
    """
    from gemmacli.progress import follow_pull

    body: Json = {"source": source}
    if model:
        body["model"] = model
    if store is not None:
        body["store"] = str(store.absolute())
    records: list[Json] = []
    follow_pull(_kept(app.daemon().import_models(body), records), as_json=app.as_json)
    if app.as_json:
        return None
    return Notice(f"imported {plural(int(records[-1].get('imported') or 0), 'model')}")


def _kept(records: Iterator[Json], seen: list[Json]) -> Iterator[Json]:
    for record in records:
        seen.append(record)
        yield record
