"""Builds many kernels at once, in threads: the compiler leaves Python's lock alone, mostly.

A kernel is built anew for each combination of types, compile-time constants and certain properties
of its numbers. Whatever calls `launch` on the tensors of a request tells which ones that are.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gemmarunner.kernels.launch import launching_by

_MOST_THREADS = 16


@contextmanager
def building() -> Iterator[None]:
    """Inside, `launch` has its kernel built and loaded but not run; at the end all of them are.

    Raises what the compiler raised, at the end. A Triton without the means (they are not part of
    its public interface) builds nothing here: each kernel is then built when it first runs.
    """
    try:
        from triton.runtime._async_compile import AsyncCompileMode, active_mode
    except ImportError:
        with launching_by(lambda *_: None):
            yield
        return
    threads = min(_MOST_THREADS, _cores())
    device = torch.cuda.current_device()  # of this thread; another one's would be the first
    with ThreadPoolExecutor(threads, "build", torch.cuda.set_device, (device,)) as pool:
        try:
            with AsyncCompileMode(_Loading(pool)), launching_by(Builds()):
                yield
        finally:
            active_mode.set(None)  # which a failed build leaves as it is


class Builds:
    """Asks for each kernel's build once, however often it is launched."""

    def __init__(self) -> None:
        self._asked: set[tuple[object, ...]] = set()

    def __call__(
        self, kernel: Any, grid: tuple[int, ...], args: tuple[object, ...], meta: dict[str, object]
    ) -> None:
        """See `launch.launching_by`."""
        key = (id(kernel), str(meta), *map(_kind, args))
        if key not in self._asked:
            self._asked.add(key)
            kernel.warmup(*args, grid=grid, **meta)


class _Loading:
    """A pool of threads that also loads what they have built."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def submit(self, build: Callable[[], Any]) -> Future[Any]:
        return self._pool.submit(_loaded, build)


def _loaded(build: Callable[[], Any]) -> Any:
    kernel = build()
    if hasattr(kernel, "_init_handles"):  # compiles its launcher, in C, and loads both
        kernel._init_handles()
    return kernel


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _kind(argument: object) -> object:
    """All that a build depends on: at least what Triton looks at."""
    if isinstance(argument, Tensor):
        return argument.dtype, argument.data_ptr() % 16 == 0
    if isinstance(argument, int):
        return argument == 1, argument % 16 == 0, argument.bit_length() > 31
    return type(argument)
