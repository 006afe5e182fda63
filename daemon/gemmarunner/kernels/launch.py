"""Starts Triton kernels, each early enough to hide behind the one before it.

Programmatic dependent launch (compute capability 9.0 on): a kernel's programs may start while the
kernel before it still runs. Every kernel here therefore takes `PDL: tl.constexpr` and, where it is
set, calls `gdc_launch_dependents()` first of all and `gdc_wait()` before it touches anything that
another kernel wrote, or writes anything itself. Between the two it may fetch constants: weights.
All programs of a kernel must wait, also those with nothing to do: a kernel that has ended then
means that all kernels before it have.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor


def on_gpu(x: Tensor) -> bool:
    """Whether `x` lies where Triton kernels run."""
    return x.is_cuda


@cache
def pdl_enabled() -> bool:
    """Whether kernels may start before the one ahead has ended: not in Triton's interpreter."""
    if os.environ.get("TRITON_INTERPRET") == "1" or not torch.cuda.is_available():
        return False
    return torch.version.cuda is not None and torch.cuda.get_device_capability() >= (9, 0)


def launch(kernel: Any, grid: tuple[int, ...], *args: object, **meta: object) -> None:
    """Enqueue `kernel` over `grid`; `meta` holds its constexprs, `num_warps` and `num_stages`.

    Where kernels are being built (`building.building`), the kernel is built and not run.
    """
    meta["PDL"] = pdl_enabled()
    if meta["PDL"]:
        meta["launch_pdl"] = True
    build = _build.get()
    if build is not None:
        build(kernel, grid, args, meta)
    else:
        kernel[grid](*args, **meta)


Build = Callable[[Any, tuple[int, ...], tuple[object, ...], dict[str, object]], None]
_build: ContextVar[Build | None] = ContextVar("build", default=None)


def only_builds() -> bool:
    """Whether kernels are not run now, so that what they would have written has no meaning."""
    return _build.get() is not None


@contextmanager
def launching_by(build: Build) -> Iterator[None]:
    """Inside, `launch` calls `build` with a kernel, its grid, arguments and `meta`."""
    before = _build.set(build)
    try:
        yield
    finally:
        _build.reset(before)
