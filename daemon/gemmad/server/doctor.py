"""POST /api/doctor: what the daemon sees of this machine, or would see of a scripted one."""

import asyncio
import importlib.metadata
import importlib.util

import msgspec
from aiohttp import web

from gemmad.core import Manifest
from gemmad.dialects.ollama import doctor
from gemmad.dialects.ollama.doctor import DoctorBody
from gemmad.dialects.ollama.replies import Record
from gemmad.memory.readings import Machine
from gemmad.memory.scripted import script
from gemmad.server import local
from gemmad.server.bodies import read_json
from gemmad.server.offers import offered
from gemmad.server.services import SERVICES, Services
from gemmad.server.streams import json_response


async def examine(request: web.Request) -> web.Response:
    """POST /api/doctor."""
    body = await read_json(request, DoctorBody)
    services = request.app[SERVICES]
    record = await asyncio.to_thread(_examined, services, body, is_local=local.is_local(request))
    return json_response(record)


def _examined(services: Services, body: DoctorBody, *, is_local: bool) -> Record:
    machine = services.machine()
    if body.script is not None:
        machine = script(msgspec.json.encode(body.script))[0]
    return {
        "version": services.version,
        "simulated": body.script is not None,
        **doctor.machine(machine),
        "software": {**_software(machine), "cpu_kernels": services.kernels()},
        "store": _store(services),
        # Where things lie is for those who may name files of this machine.
        "places": dict(services.places) if is_local else {},
        "catalogue": _catalogue(services, machine),
    }


def _software(machine: Machine) -> Record:
    triton = importlib.util.find_spec("triton") is not None
    fuses = triton and any(device.kind == "cuda" for device in machine.accelerators)
    return {
        "torch": _torch_version(),
        "triton": triton,
        # How a pair runs on the best device: kernels of ours, or torch's own operators.
        "kernels": "fused" if fuses else "torch",
    }


def _torch_version() -> str:
    """With its build behind a plus; empty: it is not installed."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _store(services: Services) -> Record:
    entries = services.store.all()
    broken = [str(entry.name) for entry in entries if not isinstance(entry, Manifest)]
    return {
        "models": len(entries) - len(broken),
        "broken": broken,
        "free": services.store.free(),
    }


def _catalogue(services: Services, machine: Machine) -> list[Record]:
    records = offered(services, services.offers(), machine)
    for record in records:
        needed = record["needed_bytes"]
        record["why"] = doctor.why_not(machine, record["fits"], needed)
    return records
