"""Rows and lines of what can be pulled, is being pulled, was verified or can be removed; pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from gemmacli.json_object import Json
from gemmacli.tables import aligned
from gemmacli.wording import age, moment, percent, plural, size

OFFERED_HEAD = ("NAME", "SIZE", "DRAFTER", "FITS", "INSTALLED")
PULLING_HEAD = ("NAME", "STATE", "DONE", "SIZE", "STARTED", "WATCHED BY")
_FITS = {"gpu": "GPU", "gpus": "GPUs", "cpu": "CPU", "unknown": "-"}


def offered_row(model: Json) -> tuple[str, ...]:
    """A model that could be pulled, as OFFERED_HEAD names the cells."""
    return (
        str(model["name"]),
        _size(model.get("target_bytes")),
        _size(model.get("drafter_bytes")),
        _fits(model),
        "yes" if model.get("installed") else "",
    )


def pulling_row(pull: Json, now: datetime) -> tuple[str, ...]:
    """A pull, as PULLING_HEAD names the cells."""
    total, done = int(pull.get("total") or 0), int(pull.get("completed") or 0)
    started = pull.get("started_at")
    clients = "nobody" if not pull.get("clients") else str(pull["clients"])
    return (
        str(pull["name"]),
        str(pull.get("state") or "-"),
        percent(done / total) if total else "-",
        _size(total),
        age(moment(started), now) if isinstance(started, str) and started else "-",
        "nobody (detached)" if pull.get("detached") and clients == "nobody" else clients,
    )


def garbage(reply: Json) -> str:
    """What a collection found, or has removed, in a sentence."""
    count = len(reply.get("blobs") or ())
    found = f"{plural(count, 'file')} that no model needs, {size(int(reply.get('bytes') or 0))}"
    text = f"{found}." if reply.get("dry_run") else f"Removed {found}."
    if not count:
        text = "Nothing to remove."
    return f"{text} {reply['note']}" if reply.get("note") else text


def files(records: Iterable[Json]) -> list[Json]:
    """The records of a verification that are about one file."""
    return [record for record in records if "ok" in record]


def verified(records: Iterable[Json]) -> list[str]:
    """A line for each model, below it one for each bad file, and a last line that sums up."""
    seen = list(records)
    models: dict[str, list[Json]] = {}
    for record in files(seen):
        models.setdefault(str(record.get("model") or "(no model)"), []).append(record)
    lines = []
    for name, found in models.items():
        bad = [record for record in found if not record["ok"]]
        verdict = _verdict(name, seen) if bad else "ok"
        lines += aligned([(name, verdict, plural(len(found), "file"))])
        lines += [f"  {_where(record)}: {record.get('why') or 'damaged'}" for record in bad]
    return [*lines, _summed(seen[-1] if seen else {}, len(models))]


def _verdict(name: str, records: Sequence[Json]) -> str:
    """What a model with bad files is after all that was done about it."""
    told = {record.get("status") for record in records if record.get("model") == name}
    return "repaired" if "repairing" in told and "not repaired" not in told else "BAD"


def _where(record: Json) -> str:
    return " ".join(str(record[key]) for key in ("kind", "file") if record.get(key))


def verified_json(records: Sequence[Json]) -> Json:
    """The files of a verification, and how many were and are bad."""
    last = records[-1] if records else {}
    return {"files": files(records), "bad": last.get("bad", 0), "repaired": last.get("repaired", 0)}


def _summed(last: Json, models: int) -> str:
    bad, repaired = int(last.get("bad") or 0), int(last.get("repaired") or 0)
    if not bad:
        return f"Every byte is as it should be ({plural(models, 'model')})."
    if repaired:
        return f"Bad: {plural(bad, 'file')}. Repaired: {plural(repaired, 'model')}."
    return f"Bad: {plural(bad, 'file')}. Repair with: gemma verify --repair"


def _size(count: object) -> str:
    return size(count) if isinstance(count, int) and count else "-"


def _fits(model: Json) -> str:
    needed = model.get("needed_bytes")
    if model.get("fits") == "no":
        return f"no, needs {_size(needed)}" if needed else "no"
    return _FITS.get(str(model.get("fits")), "-")
