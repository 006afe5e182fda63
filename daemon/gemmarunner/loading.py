"""Builds what serves a pair, from its files: the runner's one composition function.

Imports torch, so it is itself imported only when a load begins.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from gemmad.api.errors import GemmaError, LoadFailed, WillNotFit
from gemmad.wire import Generate, Load, Loaded, Message
from gemmarunner.chat import PromptWriter
from gemmarunner.device import resolve_device, resolve_dtype, use_threads
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest, Failed
from gemmarunner.engine.request import DraftMode, Sampling
from gemmarunner.files import Files, read_eos_ids, read_format, read_tokenizer
from gemmarunner.models.checkpoint import Checkpoint
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.target import Target
from gemmarunner.renderer import TemplateRenderer
from gemmarunner.serving import Served

_log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]  # phase, done, total

WARM_CONTEXT = 64
WARM_TOKENS = 8
WARM_DEPTH = 2


class _Weights(NamedTuple):
    dtype: torch.dtype  # as stored
    nbytes: int


class _Drafting(NamedTuple):
    """A drafter that is ready, or why there is none; both None when none was given."""

    drafter: Drafter | None = None
    note: str | None = None
    nbytes: int = 0


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
    device = resolve_device(load.device)
    weights = _weights(files)
    use_threads(load.threads, device, weights.nbytes)
    dtype = resolve_dtype(load.dtype, device, weights.dtype, weights.nbytes)
    try:
        target = load_target(files, device, dtype, lambda d, t: report("target", d, t))
        drafting = _drafting(load, target, device, dtype, report)
        drafting = _warmed(target, drafting, eos_ids, report)
        _compile_template(writer)
        engine = _engine(load, target, drafting, eos_ids)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise WillNotFit(
            f"{device} has no room for {weights.nbytes * dtype.itemsize // weights.dtype.itemsize} "
            f"bytes of weights and a context of {load.num_ctx} tokens.",
            fix="Stop another model, or load with a smaller num_ctx.",
        ) from error
    return Served(
        engine=engine,
        writer=writer,
        tokenizer=tokenizer,
        hidden_ids=eos_ids | {target.config.pad_id},
        loaded=Loaded(
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            target_bytes=weights.nbytes * dtype.itemsize // weights.dtype.itemsize,
            drafter_bytes=drafting.nbytes,
            kv_bytes=engine.kv_bytes,
            num_ctx=load.num_ctx,
            load_ns=time.perf_counter_ns() - started,
            drafter=drafting.drafter is not None,
            drafter_note=drafting.note,
        ),
    )


def _paths(files: Mapping[str, str]) -> Files:
    return {name: Path(path) for name, path in files.items()}


def _weights(files: Files) -> _Weights:
    """Dtype and size of the weights as stored; the widest tensor speaks for all."""
    checkpoint = Checkpoint(files)
    sizes = {name: checkpoint.nbytes(name) for name in checkpoint.names}
    if not sizes:
        raise LoadFailed("The weights hold no tensors.", fix="Pull the model again.")
    return _Weights(checkpoint.dtype(max(sizes, key=sizes.__getitem__)), sum(sizes.values()))


def _drafting(
    load: Load, target: Target, device: str, dtype: torch.dtype, report: Report
) -> _Drafting:
    """The pair's drafter; a wrong or broken one costs speed, never the target."""
    if load.files.drafter is None:
        return _Drafting()
    try:
        files = _paths(load.files.drafter)
        weights = _weights(files)
        drafter = load_drafter(files, device, dtype, lambda d, t: report("drafter", d, t))
        drafter.bind(target)
    except (GemmaError, RuntimeError, OSError, MemoryError) as error:
        return _without(error)
    return _Drafting(drafter, None, weights.nbytes * dtype.itemsize // weights.dtype.itemsize)


def _without(error: Exception) -> _Drafting:
    _log.warning("the target serves alone", exc_info=error)
    return _Drafting(note=f"{type(error).__name__}: {error}")


def _warmed(
    target: Target, drafting: _Drafting, eos_ids: frozenset[int], report: Report
) -> _Drafting:
    """The pair has run once, so the first request does not pay for what is made at first use.

    Raises:
        LoadFailed: the target cannot run.
    """
    report("warm", 0, 1)
    error = _run_once(target, drafting.drafter, eos_ids)
    if error is not None and drafting.drafter is not None:
        drafting = _without(error)
        error = _run_once(target, None, eos_ids)
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if error is not None:
        raise LoadFailed(f"The model was loaded but cannot run: {error}.") from error
    report("warm", 1, 1)
    return drafting


def _compile_template(writer: PromptWriter) -> None:
    """The first conversation does not wait 0.1 s for it; a bad template is for requests to tell."""
    with contextlib.suppress(GemmaError):
        writer.write(Generate(id=0, messages=(Message(role="user", content="Hi"),)))


def _run_once(target: Target, drafter: Drafter | None, eos_ids: frozenset[int]) -> Exception | None:
    """What went wrong in a few rounds, of an engine of their own: its timings teach nothing."""
    engine = Engine(EagerBackend(target, drafter, num_ctx=WARM_CONTEXT), eos_ids=eos_ids)
    sampling = Sampling(seed=0, num_predict=WARM_TOKENS)
    depth: DraftMode = WARM_DEPTH if drafter is not None else "off"
    engine.add(EngineRequest(id=0, tokens=[2] * WARM_TOKENS, sampling=sampling, draft=depth))
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Failed):
                return event.error
    return None


def _engine(load: Load, target: Target, drafting: _Drafting, eos_ids: frozenset[int]) -> Engine:
    backend = EagerBackend(
        target,
        drafting.drafter,
        num_ctx=load.num_ctx,
        slots=load.num_parallel,
        max_depth=load.max_depth,
        deterministic=load.deterministic,
    )
    return Engine(
        backend,
        depth_state=load.depth_state,
        prefix_bytes=load.prefix_bytes,
        eos_ids=eos_ids,
        suppress_ids=target.config.suppress_tokens,
    )
