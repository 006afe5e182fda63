"""From a pair's files to the backend that runs it on an accelerator."""

from collections.abc import Mapping
from pathlib import Path

import torch

from gemmarunner.cuda.backend import MAX_ROWS, CudaBackend
from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.layer import Pack, as_it_is
from gemmarunner.cuda.target import CudaTarget
from gemmarunner.models.opening import open_drafter, open_target
from gemmarunner.models.split import Split
from gemmarunner.models.weights import Progress

Files = Mapping[str, Path]  # by their names in the repository


def load_cuda_target(
    files: Files,
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    *,
    pack: Pack = as_it_is,
    ple_on_host: bool = False,
    adapter: Files | None = None,
    notes: list[str] | None = None,
    split: Split = (),
) -> CudaTarget:
    """A target on fused operators; arguments and errors of `models.loader.load_target`.

    `pack` says how matrices are kept, `ple_on_host` that the per-layer table stays in host memory.
    """
    opening = open_target(files, device, dtype, progress, adapter=adapter, notes=notes, fused=True)
    with opening as opened:
        return CudaTarget(*opened, pack=pack, ple_on_host=ple_on_host, split=split)


def load_cuda_drafter(
    files: Files,
    target: CudaTarget,
    progress: Progress | None = None,
    *,
    pack: Pack = as_it_is,
    notes: list[str] | None = None,
) -> CudaDrafter:
    """The target's drafter, on its device and in its dtype.

    Raises:
        PairMismatch: it was made for another target.
        ConfigError, LoadFailed: as `models.loader.load_drafter`.
    """
    opening = open_drafter(
        files, str(target.device), target.dtype, progress, notes=notes, fused=True
    )
    with opening as opened:
        return CudaDrafter(opened.config, opened.take, target, pack=pack)


def load_cuda_pair(
    target_files: Files,
    drafter_files: Files | None,
    device: str,
    dtype: torch.dtype | None = None,
    *,
    num_ctx: int,
    slots: int = 1,
    max_depth: int = 8,
    max_rows: int = MAX_ROWS,
    pack: Pack = as_it_is,
    ple_on_host: bool = False,
    progress: Progress | None = None,
) -> CudaBackend:
    """Both models and their slots, not yet warm; errors of the two loaders above."""
    target = load_cuda_target(
        target_files, device, dtype, progress, pack=pack, ple_on_host=ple_on_host
    )
    drafter = None
    if drafter_files is not None:
        drafter = load_cuda_drafter(drafter_files, target, progress, pack=pack)
    return CudaBackend(
        target, drafter, num_ctx=num_ctx, slots=slots, max_depth=max_depth, max_rows=max_rows
    )
