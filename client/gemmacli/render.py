"""Prints what commands return, as text for people or as JSON; the only place that does."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from gemmacli import examination, listings, seen, tables
from gemmacli.app import App
from gemmacli.json_object import Json
from gemmacli.results import (
    Answered,
    Card,
    Examined,
    Measured,
    Notice,
    Offered,
    Pulling,
    Running,
    Stored,
    Verified,
    Versions,
)

if TYPE_CHECKING:
    from gemmacli.records import Answer

_WIDE = 200


def show(result: object, app: App) -> None:
    """The result is on stdout; figures of an answer are on stderr."""
    printers = _AS_JSON if app.as_json else _AS_TEXT
    printer = printers.get(type(result), _AS_TEXT.get(type(result)))
    assert printer is not None, f"no printer for {type(result).__name__}"
    printer(result)


def _json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _versions(result: Versions) -> None:
    daemon = f"daemon {result.daemon}" if result.daemon else "no daemon running"
    click.echo(f"gemma {result.client} ({daemon})")
    if result.daemon not in (None, result.client):
        click.echo("Warning: client and daemon differ. Restart the daemon.", err=True)


def _stored(result: Stored) -> None:
    lines, notes = tables.stored(result.reply["models"], datetime.now(UTC))
    click.echo("\n".join(lines))
    for note in notes:
        click.echo(note, err=True)


def _running(result: Running) -> None:
    reply = result.reply or {"models": []}
    rows = [seen.running_row(model, datetime.now(UTC)) for model in reply["models"]]
    columns = _columns()
    click.echo("\n".join(tables.aligned(seen.fitted([seen.RUNNING_HEAD, *rows], columns))))
    for lines in (seen.budgets(reply, columns), seen.queue(reply)):
        if lines:
            click.echo("\n".join(["", *lines]))
    for note in seen.notes(reply):
        click.echo(note, err=True)
    if result.reply is None:
        click.echo("No daemon is running, so no model is loaded.", err=True)


def _columns() -> int:
    """The terminal's width; what goes to a program or a file is as wide as it needs."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDE


def _examined(result: Examined) -> None:
    click.echo("\n".join(examination.examination(result.reply)))


def _offered(result: Offered) -> None:
    _table(listings.OFFERED_HEAD, map(listings.offered_row, result.reply["models"]))


def _pulling(result: Pulling) -> None:
    pulls, now = (result.reply or {}).get("pulls") or [], datetime.now(UTC)
    _table(listings.PULLING_HEAD, [listings.pulling_row(pull, now) for pull in pulls])
    if result.reply is None:
        click.echo("No daemon is running, so nothing is being pulled.", err=True)


def _verified(result: Verified) -> None:
    click.echo("\n".join(listings.verified(result.records)))


def _card(result: Card) -> None:
    if result.part is not None:
        click.echo(str(result.reply.get(result.part) or "").rstrip("\n"))
        return
    click.echo("\n".join(tables.card(result.reply, verbose=result.verbose)))


def _card_json(result: Card) -> None:
    _json(result.reply if result.part is None else {result.part: result.reply.get(result.part)})


def _answered(result: Answered) -> None:
    measured = result.answer.figures
    if measured is None or result.quiet:
        return
    from gemmacli import figures

    if result.verbose:
        for name, value in figures.table(measured, result.answer.first_token_s):
            click.echo(f"{name + ':':<22}{value}", err=True)
        return
    line = figures.last_line(measured, result.answer.first_token_s)
    click.echo(click.style(line, dim=True), err=True)


def _answered_json(result: Answered) -> None:
    click.echo(json.dumps(answer_json(result.model, result.answer), ensure_ascii=False))


def answer_json(model: str, answer: "Answer") -> Json:
    """One object: the text, the daemon's figures, and the rates that follow from them."""
    final = {key: value for key, value in (answer.final or {}).items() if key != "message"}
    whole: Json = {**final, "model": model, "response": answer.text}
    if answer.thinking:
        whole["thinking"] = answer.thinking
    if measured := answer.figures:
        whole["tokens_per_second"] = measured.eval_rate
        whole["first_token_s"] = answer.first_token_s
    return whole


def _measured(result: Measured) -> None:
    from gemmacli.reports import lines

    click.echo("\n".join(lines(result.report)))


def _measured_json(result: Measured) -> None:
    from gemmacli.reports import as_json

    _json(as_json(result.report))


def _notice(result: Notice) -> None:
    click.echo(result.text)


def _notice_json(result: Notice) -> None:
    _json({"message": result.text} if result.record is None else result.record)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    click.echo("\n".join(tables.aligned([head, *rows])))


_AS_TEXT: dict[type, Callable[[Any], None]] = {
    Versions: _versions,
    Stored: _stored,
    Running: _running,
    Examined: _examined,
    Card: _card,
    Answered: _answered,
    Measured: _measured,
    Offered: _offered,
    Pulling: _pulling,
    Verified: _verified,
    Notice: _notice,
}
_AS_JSON: dict[type, Callable[[Any], None]] = {
    Stored: lambda result: _json(result.reply),
    Running: lambda result: _json(result.reply or {"models": []}),
    Examined: lambda result: _json(result.reply),
    Card: _card_json,
    Answered: _answered_json,
    Measured: _measured_json,
    Offered: lambda result: _json(result.reply),
    Pulling: lambda result: _json(result.reply or {"pulls": []}),
    Verified: lambda result: _json(listings.verified_json(result.records)),
    Notice: _notice_json,
}
