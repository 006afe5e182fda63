"""The composition root: reads the settings, builds the rooms, and starts and ends the daemon."""

import asyncio
import functools
import os
import secrets
import string
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import gemmamodelfiles
from gemmad.api.errors import BadRequest
from gemmad.api.version import VERSION
from gemmad.config import Config, ConfigError, load_config
from gemmad.core import ByteCount
from gemmad.dialects.ollama.options import read_options
from gemmad.dialects.ollama.replies import Clock
from gemmad.fetch.fetcher import Fetcher
from gemmad.fetch.limits import FetchLimits
from gemmad.inspection.inspector import inspect
from gemmad.logs import leave_plain_file, start_logging
from gemmad.memory.host import cpu_kind
from gemmad.memory.probe import MachineProbe, Probe
from gemmad.memory.taken import Taken
from gemmad.pulls.pulls import Means, Pulls
from gemmad.recipes.places import Places
from gemmad.recipes.recipes import Recipes
from gemmad.residency.depths import DepthStates
from gemmad.residency.fits import Allowed, Fit, Scales, Where, unusable, ways
from gemmad.residency.hands import Tools
from gemmad.residency.loop import Residency, Senses, since_boot
from gemmad.residency.placing import WaysOf
from gemmad.residency.ports import NoSpare, Runner
from gemmad.residency.reasons import Reasons
from gemmad.residency.resident import Wanted
from gemmad.residency.rules import Rules
from gemmad.residency.seen import ResidencyEvent
from gemmad.residency.weighing import Weigher
from gemmad.runners.process import Command, runner_command
from gemmad.runners.spare import ALWAYS, SpareLimits, SpareRunner
from gemmad.runners.supervisor import Runner as ChildRunner
from gemmad.runners.supervisor import RunnerSpec
from gemmad.server.counting import Counts
from gemmad.server.listeners import CannotListen, InstanceLock, unix_socket
from gemmad.server.listening import Listeners
from gemmad.server.serve import serve
from gemmad.server.services import Services
from gemmad.sources.builtin import NAME, BuiltinSource
from gemmad.sources.catalogue import Catalogue
from gemmad.sources.directory import DirectorySource
from gemmad.sources.half import Source
from gemmad.sources.hub import HubSource
from gemmad.sources.kaggle import KaggleSource
from gemmad.sources.ollama_store import OllamaStore, ollama_root
from gemmad.store.store import Store
from gemmad.wire import DraftMode, Load, Progress, Quantize

EX_UNAVAILABLE = 69  # sysexits.h: another daemon is there
EX_CONFIG = 78  # sysexits.h: service managers are told not to restart on it
_MODELFILES = Path(gemmamodelfiles.__path__[0])
_EXPORTER = (sys.executable, "-m", "gemmarunner.export")
_KERNELS = (
    sys.executable,
    "-c",
    "from gemmarunner.native.library import status; print(status())",
)
_CALL_ID_CHARS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Parts:
    """What tests replace: how a runner is started, and where what comes with us lies."""

    runner: Command = runner_command
    builtin: Path = _MODELFILES / NAME
    catalogue: Path = _MODELFILES / "catalogue"
    probe: Callable[[], Probe] = MachineProbe


def main(argv: Sequence[str] | None = None, parts: Parts | None = None) -> int:
    """The daemon ran until it was told to stop; returns the exit code."""
    os.umask(0o077)  # what the daemon makes is its user's alone
    try:
        config = load_config(sys.argv[1:] if argv is None else argv, os.environ)
        start_logging(config.locations.logs, config.log_level)
        lock = InstanceLock(config.locations.state / "gemmad.lock")
        listener = unix_socket(config.locations.socket)
        store = Store(config.locations.store)
    except ConfigError as error:
        return _refuse(EX_CONFIG, str(error))
    except CannotListen as error:
        return _refuse(EX_UNAVAILABLE, str(error))
    except OSError as error:
        return _refuse(EX_CONFIG, f"{error.filename}: {error.strerror}. Set GEMMA_HOME elsewhere.")
    try:
        build_services = functools.partial(build, config, store, parts or Parts())
        address, path = config.host, config.locations.socket
        asyncio.run(serve(build_services, address, path, listener, leave_plain_file))
    finally:
        config.locations.socket.unlink(missing_ok=True)
        lock.release()
    return 0


def _refuse(code: int, why: str) -> int:
    print(f"gemmad: {why}", file=sys.stderr)  # noqa: T201  (logging may not be up yet)
    return code


def build(config: Config, store: Store, parts: Parts) -> Services:
    """The rooms, connected. Called inside the running event loop."""
    depths = DepthStates(config.locations.state / "depths.json")
    spare = _spare(config, parts.runner)
    catalogue, hub = Catalogue(parts.catalogue), HubSource()
    probe = parts.probe()
    tools = Tools(
        start_runner=functools.partial(_start_runner, config, parts.runner, spare),
        prepare=functools.partial(_load_frame, config, store, depths),
        depths=depths,
        weigher=Weigher(
            lambda m: store.pair_files(m), Taken(config.locations.state / "taken.json")
        ),
        spare=spare or NoSpare(),
        reasons=Reasons(config.locations.state / "set_aside.json", VERSION),
    )
    events, counts = Listeners(), Counts()

    def on_event(told: ResidencyEvent) -> None:
        counts.on_event(told)
        events.publish(told)

    residency = Residency(
        tools,
        _rules(config),
        _ways(config, tools.weigher),
        Senses(probe, since_boot=since_boot),
        on_event=on_event,
        request_s=config.request_timeout,
    )
    return Services(
        store=store,
        pulls=Pulls(_means(config, store)),
        recipes=Recipes(Places(_sources(parts, hub), catalogue.find, store)),
        residency=residency,
        clock=Clock(time.time_ns, time.monotonic_ns, _new_call_id),
        version=VERSION,
        num_ctx=config.num_ctx,
        draft=cast(DraftMode, config.draft),  # config allows no other text
        quantize=_packed(config.quantize),
        deterministic=config.deterministic,
        offers=catalogue.all,
        search=hub.search,
        ollama=lambda path: OllamaStore(path or ollama_root()),
        machine=probe.read,
        exporter=_EXPORTER,
        events=events,
        counts=counts,
        kernels=_cpu_kernels,
        places={
            "store": str(config.locations.store),
            "logs": str(config.locations.logs),
            "socket": str(config.locations.socket),
            "address": f"http://{config.host.host}:{config.host.port}",
        },
    )


def _rules(config: Config) -> Rules:
    return Rules(
        max_loaded=config.max_loaded,
        max_queue=config.max_queue,
        keep_alive_s=config.keep_alive,
        queue_s=config.queue_timeout,
        load_s=config.load_timeout + 30,
        reserve=config.reserve,
    )


def _ways(config: Config, weigher: Weigher) -> WaysOf:
    allowed = Allowed(
        device=cast(Where, config.device),  # config allows no other texts
        slots=config.num_parallel,
        quantize=_packed(config.fit_quantize),
        cpu=config.cpu_fallback,
        cpu_kind=cpu_kind(),
    )
    scales = Scales(weigher.weigh, weigher.layers)
    return WaysOf(
        lambda wanted, machine, rooms: ways(wanted, machine, allowed, scales, rooms),
        lambda machine: unusable(machine, allowed),
    )


def _packed(text: str) -> Quantize | None:
    return None if text == "none" else cast(Quantize, text)


def _means(config: Config, store: Store) -> Means:
    rate = None if config.pull_rate is None else ByteCount(config.pull_rate)
    fetcher = Fetcher(FetchLimits(connections=config.pull_parallel, rate=rate))
    return Means(store, fetcher.fetch, inspect, _accepts, config.pull_grace)


def _sources(parts: Parts, hub: HubSource) -> list[Source]:
    """Who knows references, in the order in which they are asked."""
    return [
        BuiltinSource(parts.builtin),
        hub,
        DirectorySource(),
        KaggleSource(),
        OllamaStore(ollama_root()),
    ]


def _accepts(name: str, value: object) -> bool:
    """Whether a model's own parameter can be used."""
    try:
        read_options({name: value})
    except BadRequest:
        return False
    return True


def _spare(config: Config, command: Command) -> SpareRunner | None:
    if config.spare == "0":
        return None
    limits = ALWAYS if config.spare == "1" else SpareLimits()
    return SpareRunner(command, config.locations.logs / "runner-spare.log", limits)


def _load_frame(
    config: Config, store: Store, depths: DepthStates, wanted: Wanted, fit: Fit
) -> Load:
    return Load(
        files=store.pair_files(wanted.manifest),
        num_ctx=fit.setting.num_ctx,
        num_parallel=fit.setting.slots,
        device=fit.device.removesuffix(":0"),  # the first is the one that torch takes by itself
        dtype=config.dtype,
        threads=config.threads,
        depth_state=depths.known(wanted.manifest),
        quantize=fit.setting.quantize,
        draft_quantize=wanted.draft_quantize,
        deterministic=wanted.deterministic,
        drafter=fit.setting.drafter,
        split=fit.split,
        why=fit.why,
    )


async def _start_runner(
    config: Config,
    command: Command,
    spare: SpareRunner | None,
    load: Load,
    *,
    name: str,
    on_progress: Callable[[Progress], None],
) -> Runner:
    plain = name.replace("/", "_").replace(":", "_")[:120]  # a file name has at most 255 bytes
    log_path = config.locations.logs / f"runner-{plain}.log"
    return await ChildRunner.start(
        RunnerSpec(load, log_path, name),
        on_progress=on_progress,
        deadline_s=config.load_timeout,
        command=command,
        spare=await spare.take() if spare else None,
    )


@functools.cache
def _cpu_kernels() -> str:
    """Asked of a process of its own: the engine's packages stay out of this one."""
    try:
        asked = subprocess.run(_KERNELS, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"not known: {error}"
    return asked.stdout.strip()


def _new_call_id() -> str:
    return "call_" + "".join(secrets.choice(_CALL_ID_CHARS) for _ in range(8))
