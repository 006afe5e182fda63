"""From a load's files to the backend that runs the pair: fused kernels, or torch's operators.

Fused kernels (`cuda/`) run on NVIDIA GPUs where Triton is installed, in bf16 and f16. Everything
else runs through torch's own operators (`models/`, `engine/eager.py`), and so does a pair whose
layers are split over GPUs of different kinds, or whose fused kernels cannot be built on this
machine; the log says why.
"""

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from gemmad.api.errors import BadRequest, GemmaError, LoadFailed
from gemmad.wire import Load
from gemmarunner.device import make_current
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.owned import allocated_bytes
from gemmarunner.engine.ports import Backend
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.native.library import library, status
from gemmarunner.tending import LoadDrafter, LoadedDrafter

if TYPE_CHECKING:
    from gemmarunner.cuda.backend import CudaBackend

_log = logging.getLogger(__name__)

Report = Callable[[str, int, int], None]  # phase, done, total
Files = Mapping[str, Path]
_NOT_LOADED = "it was loaded without"
_SPLIT = "layers on these devices run by torch's own operators, not by fused kernels"
_FUSED_DTYPES = (torch.bfloat16, torch.float16)


class Place(NamedTuple):
    """Where a pair runs, and in what."""

    device: str
    dtype: torch.dtype


class SplitPart(NamedTuple):
    """What one of several devices has of a target."""

    device: str
    target_bytes: int
    kv_bytes: int


class Built(NamedTuple):
    """A pair that has run once."""

    backend: Backend
    config: TargetConfig
    has_drafter: bool
    note: str | None  # why there is no drafter although one was given
    load_drafter: LoadDrafter  # loads the drafter of the same files, for the same backend
    target_bytes: int = 0  # as measured on the device; 0: as the files say
    drafter_bytes: int = 0
    notes: tuple[str, ...] = ()  # what a person should know of how the weights are kept
    parts: tuple[SplitPart, ...] = ()  # by device, of a split target


def can_fuse(device: str) -> bool:
    """Whether fused kernels may run on `device`: an NVIDIA GPU of 2020 or later, and Triton."""
    if not device.startswith("cuda") or torch.version.cuda is None:
        return False
    if importlib.util.find_spec("triton") is None:
        _log.warning("Triton is not installed: torch's own operators are several times slower")
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _all_fuse(devices: Sequence[str]) -> bool:
    """Whether the same fused kernels run on each of them."""
    if not all(can_fuse(device) for device in devices):
        return False
    return len(devices) == 1 or len(set(map(torch.cuda.get_device_capability, devices))) == 1


def build(load: Load, files: Files, place: Place, report: Report) -> Built:
    """The pair of `load`, whose target's files are `files`; it is warm.

    Raises:
        LoadFailed: the target's files are damaged, or it cannot run.
        torch.OutOfMemoryError, MemoryError: no room.
    """
    places = [device for device, _ in load.split] or [place.device]
    if place.dtype not in _FUSED_DTYPES or not _all_fuse(places):
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
    from gemmarunner.cuda.drafter import CudaDrafter
    from gemmarunner.cuda.loading import load_cuda_drafter, load_cuda_target
    from gemmarunner.models.packing import packer

    notes: list[str] = []
    used, apart = torch.cuda.memory_allocated(place.device), _Parts(load)
    target = load_cuda_target(
        files,
        *place,
        lambda d, t: report("target", d, t),
        pack=packer(load.quantize, notes),
        adapter=_adapter(load),
        notes=notes,
        split=load.split,
    )
    by_device = apart.taken()
    taken = sum(by_device) or torch.cuda.memory_allocated(place.device) - used

    def make(found: Files, report: Report, notes: list[str]) -> CudaDrafter:
        return load_cuda_drafter(
            found,
            target,
            lambda d, t: report("drafter", d, t),
            pack=packer(load.draft_quantize),
            notes=notes,
        )

    loader = _DrafterLoader(load, make, torch.device(place.device))
    drafter, note = loader.first(report, notes)
    backend = CudaBackend(
        target,
        drafter,
        num_ctx=load.num_ctx,
        slots=load.num_parallel,
        max_depth=load.max_depth,
        may_attach=loader.can_load,
    )
    backend.warm(lambda done, total: report("kernels", done, total))
    return Built(
        backend,
        target.config,
        drafter is not None,
        note,
        loader.again,
        target_bytes=taken,
        drafter_bytes=loader.nbytes,
        notes=tuple(notes),
        parts=apart(backend, by_device),
    )


def _plain(load: Load, files: Files, place: Place, report: Report) -> Built:
    notes: list[str] = []
    if place.device.startswith("cpu") and library() is None:
        notes.append(f"This CPU runs the pair by torch's own operators, more slowly: {status()}.")
    before, apart = allocated_bytes(torch.device(place.device)), _Parts(load)
    target = load_target(
        files,
        *place,
        lambda d, t: report("target", d, t),
        load.quantize,
        adapter=_adapter(load),
        notes=notes,
        split=load.split,
    )
    # Torch's operators may read mapped files in place, which nobody counts as allocated.
    copies = place.device == "cpu" and library() is not None
    taken = max(0, allocated_bytes(torch.device(place.device)) - before) if copies else 0
    by_device = apart.taken()
    if load.split:
        taken = sum(by_device)
        notes.append(_SPLIT)

    def make(found: Files, report: Report, notes: list[str]) -> Drafter:
        drafter = load_drafter(
            found,
            *place,
            lambda d, t: report("drafter", d, t),
            load.draft_quantize,
            notes=notes,
        )
        drafter.bind(target)
        return drafter

    loader = _DrafterLoader(load, make, torch.device(place.device))
    drafter, note = loader.first(report, notes)

    def backend_of(drafter: Drafter | None) -> EagerBackend:
        made = EagerBackend(
            target,
            drafter,
            num_ctx=load.num_ctx,
            slots=load.num_parallel,
            max_depth=load.max_depth,
            deterministic=load.deterministic,
            may_attach=loader.can_load,
        )
        made.warm(lambda done, total: report("warm", done, total))
        return made

    try:
        backend = backend_of(drafter)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if drafter is None:
            raise LoadFailed(f"The model was loaded but cannot run: {error}.") from error
        note, drafter = _told(error), None
        backend = backend_of(None)
    return Built(
        backend,
        target.config,
        drafter is not None,
        note,
        loader.again,
        target_bytes=taken,
        drafter_bytes=loader.nbytes if drafter is not None else 0,
        notes=tuple(notes),
        parts=apart(backend, by_device),
    )


class _Parts:
    """Measures what each device gets of a target that is loaded between."""

    def __init__(self, load: Load) -> None:
        self._split = load.split
        self._before = self._allocated()

    def __call__(
        self, backend: "EagerBackend | CudaBackend", target_bytes: list[int]
    ) -> tuple[SplitPart, ...]:
        found, begin = [], 0
        for (device, count), nbytes in zip(self._split, target_bytes, strict=True):
            found.append(SplitPart(device, nbytes, backend.kv_bytes_of(begin, begin + count)))
            begin += count
        return tuple(found)

    def taken(self) -> list[int]:
        """Bytes by device since the beginning."""
        return [now - before for now, before in zip(self._allocated(), self._before, strict=True)]

    def _allocated(self) -> list[int]:
        return [allocated_bytes(torch.device(device)) for device, _ in self._split]


def _adapter(load: Load) -> Files | None:
    given = load.files.adapter
    return None if given is None else {name: Path(path) for name, path in given.items()}


class _DrafterLoader:
    """Loads the pair's drafter, with the pair or later; a wrong one costs speed, not the target."""

    def __init__(
        self, load: Load, make: Callable[[Files, Report, list[str]], Any], device: torch.device
    ) -> None:
        given = load.files.drafter
        self._files = None if given is None else {n: Path(path) for n, path in given.items()}
        self._is_wanted = load.drafter
        self._make = make
        self._device = device
        self.nbytes = 0  # what the first one took

    @property
    def can_load(self) -> bool:
        """Whether there are files of one."""
        return self._files is not None

    def first(self, report: Report, notes: list[str]) -> tuple[Any, str | None]:
        """The drafter, or None and why although one was given."""
        if self._files is None:
            return None, None
        if not self._is_wanted:
            return None, _NOT_LOADED
        try:
            return self._measured(report, notes), None
        except (GemmaError, RuntimeError, OSError, MemoryError) as error:
            return None, _told(error)

    def again(self) -> LoadedDrafter:
        """The drafter, for a pair that runs.

        Raises:
            BadRequest: the pair has no drafter's files.
            GemmaError, RuntimeError, OSError, MemoryError: as its loader.
        """
        if self._files is None:
            raise BadRequest("The pair has no drafter.", fix="Give it one: gemma draft.")
        make_current(str(self._device))  # of this thread: another one's would be the first
        return LoadedDrafter(self._measured(_unreported, []), self.nbytes)

    def _measured(self, report: Report, notes: list[str]) -> Any:
        assert self._files is not None
        before = allocated_bytes(self._device)
        drafter = self._make(self._files, report, notes)
        if not self.nbytes:  # later ones are as large, and load beside answers, which allocate too
            self.nbytes = max(0, allocated_bytes(self._device) - before)
        return drafter


def _unreported(_phase: str, _done: int, _total: int) -> None:
    pass


def _told(error: Exception) -> str:
    _log.warning("the target serves alone", exc_info=error)
    return f"{type(error).__name__}: {error}"
