"""Rows, bars and lines of what is in memory; pure."""

from collections.abc import Sequence
from datetime import datetime

from gemmacli.json_object import Json
from gemmacli.tables import ID_CHARACTERS
from gemmacli.wording import age, duration, moment, percent, size

RUNNING_HEAD = (
    "NAME", "ID", "SIZE", "TARGET", "DRAFTER", "DEPTH", "ACCEPTED", "TOK/S", "CONTEXT", "UNTIL",
)  # fmt: skip
# On a narrow terminal these go first, in this order; name, halves and time stay.
DISPENSABLE = ("ID", "ACCEPTED", "CONTEXT", "SIZE", "DEPTH", "TOK/S")
_GAP = 4
_BAR_LEAST, _BAR_MOST = 10, 40
_PARTS = (("target", "#"), ("drafter", "+"), ("kv", "="), ("prefixes", "-"))
LEGEND = "# targets  + drafters  = K/V  - kept prompts  o our rest  : others  . free"


def running_row(model: Json, now: datetime) -> tuple[str, ...]:
    """A loaded model, as RUNNING_HEAD names the cells."""
    depth, rate = model.get("depth"), model.get("tokens_per_second")
    return (
        str(model["name"]),
        str(model.get("digest") or "-").removeprefix("sha256:")[:ID_CHARACTERS],
        _size(model.get("size")),
        _target(model),
        _drafter(model.get("drafter")),
        "-" if depth is None else str(depth),
        " ".join(percent(share) for share in model.get("acceptance") or ()) or "-",
        f"{rate:.0f}" if rate else "-",
        str(model.get("context_length") or "-"),
        _until(model, now),
    )


def fitted(rows: Sequence[Sequence[str]], columns: int) -> list[tuple[str, ...]]:
    """Rows, their head first, without what can be spared until they are `columns` wide."""
    found = [tuple(row) for row in rows]
    for name in DISPENSABLE:
        if _width(found) <= columns:
            break
        index = found[0].index(name)
        found = [(*row[:index], *row[index + 1 :]) for row in found]
    return found


def _width(rows: Sequence[Sequence[str]]) -> int:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return sum(widths) + _GAP * (len(widths) - 1)


def notes(reply: Json) -> list[str]:
    """Why things are as they are, a line each."""
    lines = [str(note) for note in reply.get("notes") or ()]
    for model in reply["models"]:
        drafter, crashes = model.get("drafter") or {}, model.get("crashes") or {}
        if not drafter.get("loaded") and drafter.get("note"):
            lines.append(f"{model['name']}: no drafter: {drafter['note']}")
        if model.get("context_why"):
            lines.append(f"{model['name']}: context: {model['context_why']}")
        if (model.get("target") or {}).get("why"):
            lines.append(f"{model['name']}: {model['target']['why']}")
        lines += [f"{model['name']}: {note}" for note in model.get("notes") or ()]
        lines += _crashes(str(model["name"]), crashes)
    for refused in reply.get("refused") or ():
        lines += _crashes(f"{refused['model']}: not loaded for now", refused["crashes"])
    return lines


def _crashes(who: str, crashes: Json) -> list[str]:
    if not crashes:
        return []
    told = f"{who}: crashed {crashes['count']} times: {crashes['reason']}"
    return [told, *(f"    {line}" for line in crashes.get("log") or ())]


def budgets(reply: Json, columns: int) -> list[str]:
    """A bar for each memory, what of it is ours and free, and what the bar's marks mean."""
    found = reply.get("budgets") or ()
    if not found:
        return []
    names = [str(budget["id"]) for budget in found]
    widest = max(map(len, names))
    texts = [_told(budget) for budget in found]
    room = columns - widest - max(map(len, texts)) - 6
    width = max(_BAR_LEAST, min(_BAR_MOST, room))
    lines = [
        f"{name:<{widest}}  [{bar(budget, width)}]  {text}"
        for name, budget, text in zip(names, found, texts, strict=True)
    ]
    noted = [f"{b['id']}: {note}" for b in found for note in b.get("notes") or ()]
    return [*lines, *noted, LEGEND]


def bar(budget: Json, width: int) -> str:
    """One memory, `width` marks wide; what takes anything at all has a mark."""
    total = max(1, int(budget.get("total") or 0))
    ours = budget.get("ours") or {}
    parts = [(mark, int(ours.get(name) or 0)) for name, mark in _PARTS]
    rest = sum(int(ours.get(name) or 0) for name in ("spare", "other"))
    own = rest + sum(nbytes for _, nbytes in parts)
    others = max(0, total - int(budget.get("free") or 0) - own)
    marks = "".join(
        mark * min(width, max(1, round(nbytes * width / total)))
        for mark, nbytes in (*parts, ("o", rest), (":", others))
        if nbytes
    )
    return f"{marks[:width]:.<{width}}"


def queue(reply: Json) -> list[str]:
    """Who waits, in one line; nothing when nobody does."""
    waiting = [
        f"{w['model']} ({w['priority']}, {duration(float(w['waiting_s']))})"
        for w in reply.get("queue") or ()
    ]
    return [f"Waiting: {', '.join(waiting)}"] if waiting else []


def _told(budget: Json) -> str:
    ours = sum(int(nbytes or 0) for nbytes in (budget.get("ours") or {}).values())
    free, total = int(budget.get("free") or 0), int(budget.get("total") or 0)
    return f"{size(ours)} ours, {size(free)} of {size(total)} free"


def _size(count: object) -> str:
    return size(count) if isinstance(count, int) and count else "-"


def _target(model: Json) -> str:
    target = model.get("target") or {}
    device = target.get("device") or model.get("device")
    if not device:
        return "-"
    return f"{size(int(target['size']))} {device}" if target.get("size") else str(device)


def _drafter(drafter: Json | None) -> str:
    if not drafter or drafter.get("state") == "absent":
        return "-"
    if drafter.get("loaded"):
        return f"{_size(drafter.get('size'))} {drafter.get('device') or ''}".rstrip()
    return str(drafter.get("state") or "not loaded").replace("_", " ")


def _until(model: Json, now: datetime) -> str:
    expires, progress = model.get("expires_at"), model.get("progress")
    if model.get("state") in ("stopping", "draining"):
        return "Stopping..."
    if model.get("state") == "loading":
        return f"Loading {_progress(progress)}".rstrip()
    if not isinstance(expires, str) or not expires:
        return "-"
    return "Stopping..." if moment(expires) <= now else age(moment(expires), now)


def _progress(progress: Json | None) -> str:
    if not progress:
        return ""
    phase, total = str(progress.get("phase") or ""), int(progress.get("total") or 0)
    return f"{phase} {percent(int(progress['done']) / total)}" if total else phase
