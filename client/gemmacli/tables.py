"""Rows and lines for people, from the daemon's records; pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from gemmacli.json_object import Json
from gemmacli.wording import age, moment, size

STORED_HEAD = ("NAME", "ID", "SIZE", "DRAFTER", "MODIFIED")
ID_CHARACTERS = 12
BRIEF_LINES = 3


def aligned(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines with columns four spaces apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        indent
        + "    ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def stored(models: Sequence[Json], now: datetime) -> tuple[list[str], list[str]]:
    """The table of what the store holds, and a line for each name that cannot be used."""
    rows = [stored_row(model, now) for model in models]
    return aligned([STORED_HEAD, *rows]), broken_notes(models)


def stored_row(model: Json, now: datetime) -> tuple[str, ...]:
    """A model of the store, as STORED_HEAD names the cells."""
    drafter = model.get("drafter") or {}
    if model.get("broken"):
        return (str(model["name"]), "-", "broken", "-", "-")
    return (
        str(model["name"]),
        _id(model),
        size(int(model.get("size") or 0)),
        size(int(drafter["size"])) if drafter.get("size") else "-",
        _age(model.get("modified_at"), now),
    )


def broken_notes(models: Iterable[Json]) -> list[str]:
    """Why names cannot be used, a line each."""
    return [
        f"{model['name']} is broken: {model['broken']}" for model in models if model.get("broken")
    ]


def _id(model: Json) -> str:
    return str(model.get("digest") or "-").removeprefix("sha256:")[:ID_CHARACTERS]


def _age(text: object, now: datetime) -> str:
    return age(moment(text), now) if isinstance(text, str) and text else "-"


def card(reply: Json, *, verbose: bool) -> list[str]:
    """What `gemma show` prints of a model: sections with indented rows."""
    lines: list[str] = []
    for title, body in _sections(reply, verbose=verbose):
        if body:
            lines += [f"  {title}", *(f"    {line}" for line in body), ""]
    return lines[:-1]


def _sections(reply: Json, *, verbose: bool) -> list[tuple[str, list[str]]]:
    sections = [
        ("Model", aligned(_model_rows(reply))),
        ("Drafter", aligned(_drafter_rows(reply))),
        ("Adapter", [str(name) for name in reply.get("adapter") or ()]),
        ("Notes", [str(note) for note in reply.get("notes") or ()]),
        ("Capabilities", [str(name) for name in reply.get("capabilities") or ()]),
        ("Parameters", str(reply.get("parameters") or "").splitlines()),
        ("System", _brief(reply.get("system"), verbose=verbose)),
        ("Messages", _messages(reply, verbose=verbose)),
        ("License", _brief(reply.get("license"), verbose=verbose)),
    ]
    if verbose:
        info = reply.get("model_info") or {}
        sections.append(("Metadata", aligned([(key, str(info[key])) for key in sorted(info)])))
    return sections


def _model_rows(reply: Json) -> list[tuple[str, str]]:
    details = reply.get("details") or {}
    names = {
        "family": "architecture",
        "parameter_size": "parameters",
        "context_length": "context length",
        "embedding_length": "embedding length",
        "quantization_level": "quantization",
        "format": "format",
    }
    rows = [(title, str(details[key])) for key, title in names.items() if details.get(key)]
    place = origin(reply.get("source"))
    return [*rows, ("from", place)] if place else rows


def _drafter_rows(reply: Json) -> list[tuple[str, str]]:
    drafter = reply.get("drafter")
    if not drafter:
        return [("none", "answers come from the target alone")]
    rows = [("parameters", str(drafter["parameter_size"]))] if drafter.get("parameter_size") else []
    if drafter.get("size"):
        rows.append(("size", size(int(drafter["size"]))))
    if place := origin(drafter.get("source")):
        rows.append(("from", place))
    return [*rows, ("digest", _id(drafter))]


def origin(source: object) -> str:
    """Where files came from, and a revision short enough to read."""
    if not isinstance(source, dict) or not source.get("source"):
        return ""
    revision = str(source.get("revision") or "")[:ID_CHARACTERS]
    return f"{source['source']}@{revision}" if revision else str(source["source"])


def _messages(reply: Json, *, verbose: bool) -> list[str]:
    turns = reply.get("messages") or []
    return _brief([f"{turn.get('role')}: {turn.get('content')}" for turn in turns], verbose=verbose)


def _brief(text: object, *, verbose: bool) -> list[str]:
    parts = text if isinstance(text, list) else [text]
    lines = [
        line.strip() for part in parts if part for line in str(part).splitlines() if line.strip()
    ]
    return lines if verbose or len(lines) <= BRIEF_LINES else [*lines[:BRIEF_LINES], "..."]
