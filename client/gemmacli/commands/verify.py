"""`gemma verify`."""

from collections.abc import Iterator

import click

from gemmacli.app import App
from gemmacli.json_object import Json
from gemmacli.options import json_option, model_argument
from gemmacli.results import Verified


@click.command()
@model_argument(metavar="[MODEL]", default="")
@click.option("--repair", is_flag=True, help="Fetch again what is bad, and nothing else.")
@json_option
@click.pass_context
def command(ctx: click.Context, model: str, repair: bool) -> None:
    """Read every byte of the store again, and repair what is bad.

    Of one MODEL or of all. A file that differs from its digest by one bit is bad; names that need
    it are shown as broken until they are repaired. The exit code is 1 when something stays bad.
    """
    from gemmacli.render import show

    app = ctx.find_object(App)
    assert app is not None
    records = tuple(_followed(app.daemon().verify(model or None, repair=repair)))
    show(Verified(records), app)
    if records and records[-1].get("bad") and not _repaired(records):
        ctx.exit(1)


def _followed(records: Iterator[Json]) -> Iterator[Json]:
    """The records, of which those that say how far it is were shown on stderr."""
    from gemmacli.progress import screen_for

    screen = screen_for()
    try:
        for record in records:
            if record.get("status") != "success":
                screen.show(_told(record))
            yield record
    finally:
        screen.finish()


def _told(record: Json) -> Json:
    """One bar for the whole pass: it is about the store, not about the file at hand."""
    if record.get("status") != "verifying":
        return record
    return {key: record[key] for key in ("status", "completed", "total") if key in record}


def _repaired(records: tuple[Json, ...]) -> bool:
    failed = any(record.get("status") == "not repaired" for record in records)
    return bool(records[-1].get("repaired")) and not failed
