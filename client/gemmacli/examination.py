"""What `gemma doctor` prints of this computer; pure."""

from collections.abc import Iterator

from gemmacli.json_object import Json
from gemmacli.seen import bar
from gemmacli.tables import aligned
from gemmacli.wording import percent, plural, size

_KERNELS = {"fused": "fused kernels (Triton)", "torch": "the CPU's kernels or torch's operators"}
_FITS = {
    "gpu": "on a GPU",
    "gpus": "split over GPUs",
    "cpu": "on the CPU",
    "no": "no",
    "unknown": "unknown",
}
_BAR = 24


def examination(reply: Json) -> list[str]:
    """Sections with indented rows."""
    lines: list[str] = []
    for title, body in _sections(reply):
        if body:
            lines += [title, *(f"  {line}" for line in body), ""]
    return lines[:-1]


def _sections(reply: Json) -> Iterator[tuple[str, list[str]]]:
    simulated = " (simulated)" if reply.get("simulated") else ""
    yield f"Devices{simulated}", aligned([_device(device) for device in reply["devices"]])
    yield f"Memory{simulated}", [*aligned([_budget(b) for b in reply["budgets"]]), *_host(reply)]
    yield "Software", aligned(_software(reply))
    yield "Store", _store(reply)
    yield "Places", aligned([(str(k), str(v)) for k, v in (reply.get("places") or {}).items()])
    yield "Catalogue", aligned([_offer(offer) for offer in reply["catalogue"]])
    yield "Notes", [str(note) for note in reply.get("notes") or ()]


def _device(device: Json) -> tuple[str, ...]:
    usable = "usable" if device["usable"] else f"not used: {device['note']}"
    return (str(device["id"]), str(device["name"]), usable)


def _budget(budget: Json) -> tuple[str, ...]:
    total, free = int(budget["total"]), int(budget["free"])
    shared = [id for id in budget.get("devices") or () if id != budget["id"]]
    with_ = f"shared with {', '.join(shared)}" if shared else ""
    drawn = f"[{bar(budget, _BAR)}]"
    return (str(budget["id"]), drawn, f"{size(free)} of {size(total)} free", with_)


def _host(reply: Json) -> list[str]:
    pressure = (reply.get("host") or {}).get("pressure")
    return [] if pressure is None else [f"pressure {percent(float(pressure) / 100)}"]


def _software(reply: Json) -> list[tuple[str, str]]:
    found = reply["software"]
    return [
        ("daemon", str(reply["version"])),
        ("torch", str(found.get("torch") or "not installed")),
        ("Triton", "installed" if found.get("triton") else "not installed"),
        ("CPU kernels", str(found.get("cpu_kernels") or "-")),
        ("pairs run by", _KERNELS.get(str(found.get("kernels")), "-")),
    ]


def _store(reply: Json) -> list[str]:
    store = reply["store"]
    lines = [f"{plural(int(store['models']), 'model')}, {size(int(store['free']))} free"]
    if broken := store.get("broken"):
        lines.append(f"broken: {', '.join(broken)}. Repair with: gemma verify --repair")
    return lines


def _offer(offer: Json) -> tuple[str, ...]:
    needed = offer.get("needed_bytes")
    takes = f"takes {size(needed)}" if isinstance(needed, int) and needed else ""
    fits = _FITS.get(str(offer.get("fits")), "-")
    return (str(offer["name"]), takes, fits, str(offer.get("why") or ""))
