"""From a load's files to the backend that runs the pair: fused kernels, or torch's operators.

Fused kernels (`cuda/`) run on NVIDIA GPUs where Triton is installed, in bf16 and f16. Everything
else runs through torch's own operators (`models/`, `engine/eager.py`), and so does a pair whose
fused kernels cannot be built on this machine; the log says why.
"""

import importlib.util
import logging
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from gemmad.api.errors import GemmaError, LoadFailed
from gemmad.wire import Load
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.ports import Backend
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.loader import load_drafter, load_target

_log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]  # phase, done, total
Files = Mapping[str, Path]
_D = TypeVar("_D")
_FUSED_DTYPES = (torch.bfloat16, torch.float16)


class Place(NamedTuple):
    """Where a pair runs, and in what."""

    device: str
    dtype: torch.dtype


class Built(NamedTuple):
    """A pair that has run once."""

    backend: Backend
    config: TargetConfig
    has_drafter: bool
    note: str | None  # why there is no drafter although one was given
    target_bytes: int = 0  # as measured on the device; 0: as the files say
    drafter_bytes: int = 0
    notes: tuple[str, ...] = ()  # what a person should know of how the weights are kept


def can_fuse(device: str) -> bool:
    """Whether fused kernels may run on `device`: an NVIDIA GPU of 2020 or later, and Triton."""
    if not device.startswith("cuda") or torch.version.cuda is None:
        return False
    if importlib.util.find_spec("triton") is None:
        _log.warning("Triton is not installed: torch's own operators are several times slower")
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def build(load: Load, files: Files, place: Place, report: Report) -> Built:
    """The pair of `load`, whose target's files are `files`; it is warm.

    Raises:
        LoadFailed: the target's files are damaged, or it cannot run.
        torch.OutOfMemoryError, MemoryError: no room.
    """
    if not (place.dtype in _FUSED_DTYPES and can_fuse(place.device)):
        return _plain(load, files, place, report)
    try:
        return _fused(load, files, place, report)
    except (torch.OutOfMemoryError, MemoryError, GemmaError):
        raise
    except Exception:  # a compiler or driver that Triton cannot use raises anything
        _log.exception("fused kernels cannot run here; torch's operators are slower but do")
    torch.cuda.empty_cache()
    return _plain(load, files, place, report)


def _fused(load: Load, files: Files, place: Place, report: Report) -> Built:
    from gemmarunner.cuda.backend import CudaBackend
    from gemmarunner.cuda.loading import load_cuda_drafter, load_cuda_target
    from gemmarunner.models.packing import packer

    notes: list[str] = []
    used = [torch.cuda.memory_allocated(place.device)]
    target = load_cuda_target(
        files,
        *place,
        lambda d, t: report("target", d, t),
        pack=packer(load.quantize, notes),
        adapter=_adapter(load),
        notes=notes,
    )
    used.append(torch.cuda.memory_allocated(place.device))
    drafter, note = _drafter(
        load,
        lambda found: load_cuda_drafter(
            found,
            target,
            lambda d, t: report("drafter", d, t),
            pack=packer(load.draft_quantize),
            notes=notes,
        ),
    )
    used.append(torch.cuda.memory_allocated(place.device))
    backend = CudaBackend(
        target,
        drafter,
        num_ctx=load.num_ctx,
        slots=load.num_parallel,
        max_depth=load.max_depth,
    )
    backend.warm(lambda done, total: report("kernels", done, total))
    taken = [after - before for before, after in pairwise(used)]
    return Built(
        backend,
        target.config,
        drafter is not None,
        note,
        target_bytes=taken[0],
        drafter_bytes=taken[1],
        notes=tuple(notes),
    )


def _plain(load: Load, files: Files, place: Place, report: Report) -> Built:
    notes: list[str] = []
    target = load_target(
        files,
        *place,
        lambda d, t: report("target", d, t),
        load.quantize,
        adapter=_adapter(load),
        notes=notes,
    )

    def bound(found: Files) -> object:
        drafter = load_drafter(
            found,
            *place,
            lambda d, t: report("drafter", d, t),
            load.draft_quantize,
            notes=notes,
        )
        drafter.bind(target)
        return drafter

    drafter, note = _drafter(load, bound)

    def backend_of(drafter: object) -> EagerBackend:
        made = EagerBackend(
            target,
            drafter,  # type: ignore[arg-type]
            num_ctx=load.num_ctx,
            slots=load.num_parallel,
            max_depth=load.max_depth,
            deterministic=load.deterministic,
        )
        made.warm(lambda done, total: report("warm", done, total))
        return made

    try:
        found = backend_of(drafter)
        return Built(found, target.config, drafter is not None, note, notes=tuple(notes))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if drafter is None:
            raise LoadFailed(f"The model was loaded but cannot run: {error}.") from error
        note = _told(error)
    return Built(backend_of(None), target.config, False, note, notes=tuple(notes))


def _adapter(load: Load) -> Files | None:
    given = load.files.adapter
    return None if given is None else {name: Path(path) for name, path in given.items()}


def _drafter(load: Load, make: Callable[[Files], _D]) -> tuple[_D | None, str | None]:
    """The pair's drafter, or why there is none; a wrong one costs speed, never the target."""
    if load.files.drafter is None:
        return None, None
    try:
        return make({name: Path(path) for name, path in load.files.drafter.items()}), None
    except (GemmaError, RuntimeError, OSError, MemoryError) as error:
        return None, _told(error)


def _told(error: Exception) -> str:
    _log.warning("the target serves alone", exc_info=error)
    return f"{type(error).__name__}: {error}"
