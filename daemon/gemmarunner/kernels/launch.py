"""Starts Triton kernels, each early enough to hide behind the one before it.

Programmatic dependent launch (compute capability 9.0 on): a kernel's programs may start while the
kernel before it still runs. Every kernel here therefore takes `PDL: tl.constexpr` and, where it is
set, calls `gdc_launch_dependents()` first of all and `gdc_wait()` before it touches anything that
another kernel wrote, or writes anything itself. Between the two it may fetch constants: weights.
All programs of a kernel must wait, also those with nothing to do: a kernel that has ended then
means that all kernels before it have.
"""

import os
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
    """Enqueue `kernel` over `grid`; `meta` holds its constexprs, `num_warps` and `num_stages`."""
    if pdl_enabled():
        kernel[grid](*args, PDL=True, launch_pdl=True, **meta)
    else:
        kernel[grid](*args, PDL=False, **meta)
