"""Builds what serves a pair, from its files: the runner's one composition function.

Imports torch, so it is itself imported only when a load begins.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from gemmad.api.errors import GemmaError, WillNotFit
from gemmad.wire import Generate, Load, Loaded, Message, Placed
from gemmarunner.backends import Built, Place, Report, SplitPart, build, can_fuse
from gemmarunner.chat import PromptWriter
from gemmarunner.device import make_current, resolve_device, resolve_dtype, use_threads
from gemmarunner.engine.engine import Engine
from gemmarunner.files import Files, read_eos_ids, read_format, read_notes, read_tokenizer
from gemmarunner.memory import Holding, Meter
from gemmarunner.models.gguf_file import forget_headers
from gemmarunner.models.stored import Stored, stored_weights
from gemmarunner.native.trial import try_kernels
from gemmarunner.renderer import TemplateRenderer
from gemmarunner.serving import Served


def compose(load: Load, report: Report, renderer: TemplateRenderer) -> Served:
    """Everything that answers requests is built, and has answered one.

    Raises:
        GemmaError: what is wrong, for the daemon's user: LoadFailed, WillNotFit.
    """
    started = time.perf_counter_ns()
    files = _paths(load.files.target)
    tokenizer = read_tokenizer(files)
    writer = PromptWriter(tokenizer, read_format(files), renderer)
    eos_ids = read_eos_ids(files)
    places = [resolve_device(device) for device, _ in load.split]
    device = places[-1] if places else resolve_device(load.device)
    make_current(device)
    if device == "cpu":
        try_kernels()
    meter = Meter(places or [device])
    weights = stored_weights(files)
    use_threads(load.threads, device, weights.nbytes)
    dtype = _dtype(load, device, weights)
    stored = _held_bytes(weights, dtype)
    try:
        clock = _Phases(report)
        built = build(load, files, Place(device, dtype), clock)
        engine = Engine(
            built.backend,
            depth_state=load.depth_state,
            prefix_bytes=load.prefix_bytes,
            eos_ids=eos_ids,
            suppress_ids=built.config.suppress_tokens,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise WillNotFit(
            f"{' and '.join(places) or device} {'have' if places else 'has'} no room for {stored} "
            f"bytes of weights and a context of {load.num_ctx} tokens.",
            fix="Stop another model, or load with a smaller num_ctx.",
        ) from error
    _compile_template(writer)
    notes = read_notes(files)
    forget_headers()
    meter.settle()
    held = Holding(
        meter,
        built.load_drafter,
        built.target_bytes or stored,
        built.drafter_bytes or _drafter_bytes(load, built, dtype),
        built.backend.kv_bytes,
    )
    return Served(
        engine=engine,
        writer=writer,
        tokenizer=tokenizer,
        hidden_ids=eos_ids | {built.config.pad_id},
        loaded=Loaded(
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            target_bytes=held.target_bytes,
            drafter_bytes=held.drafter_bytes,
            kv_bytes=held.kv_bytes,
            num_ctx=load.num_ctx,
            load_ns=time.perf_counter_ns() - started,
            drafter=built.has_drafter,
            drafter_note=built.note,
            kernels_s=clock.seconds("kernels"),
            warm_s=clock.seconds("warm"),
            notes=(*built.notes, *notes),
            placement=_placement(load, built, device, held),
            peak_bytes=meter.peak_bytes,
        ),
        memory=held,
    )


def _placement(load: Load, built: Built, device: str, held: Holding) -> tuple[Placed, ...]:
    """What is where; of a split target, what each device has of it and of keys and values."""
    why = load.why or ("the best device here" if load.device == "auto" else "")
    drafter = Placed("drafter", device, held.drafter_bytes, why)
    whole = (SplitPart(device, held.target_bytes, held.kv_bytes),)
    parts = [
        Placed(what, part.device, nbytes, why)
        for part in built.parts or whole
        for what, nbytes in (("target", part.target_bytes), ("kv", part.kv_bytes))
    ]
    return tuple(part for part in (*parts, drafter) if part.nbytes)


class _Phases:
    """Passes reports on, and remembers how long each phase took."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._spans: dict[str, tuple[float, float]] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        begun, _ = self._spans.get(phase, (now, now))
        self._spans[phase] = begun, now
        self._report(phase, done, total)

    def seconds(self, phase: str) -> float:
        """From the first report of `phase` to the last."""
        begun, ended = self._spans.get(phase, (0.0, 0.0))
        return ended - begun


def _dtype(load: Load, device: str, weights: Stored) -> torch.dtype:
    """Fused kernels give a row the same bits at every depth, so there even a small pair may run
    as stored; where rows agree to rounding only, it runs in float32.
    """
    if load.dtype == "auto" and weights.dtype is torch.bfloat16 and can_fuse(device):
        return torch.bfloat16
    return resolve_dtype(load.dtype, device, weights.dtype, weights.nbytes)


def _paths(files: Mapping[str, str]) -> Files:
    return {name: Path(path) for name, path in files.items()}


def _drafter_bytes(load: Load, built: Built, dtype: torch.dtype) -> int:
    if not built.has_drafter:
        return 0
    return _held_bytes(stored_weights(_paths(load.files.drafter or {})), dtype)


def _held_bytes(weights: Stored, dtype: torch.dtype) -> int:
    if weights.held_bytes is not None:
        return weights.held_bytes
    return weights.nbytes * dtype.itemsize // weights.dtype.itemsize


def _compile_template(writer: PromptWriter) -> None:
    """The first conversation does not wait 0.1 s for it; a bad template is for requests to tell."""
    with contextlib.suppress(GemmaError):
        writer.write(Generate(id=0, messages=(Message(role="user", content="Hi"),)))
