"""Building ahead asks for each kernel variant once, runs nothing, and loads what it has built."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from gemmarunner.kernels.building import Builds, _Loading
from gemmarunner.kernels.launch import launch, launching_by, only_builds


class FakeKernel:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.ran: list[tuple] = []
        self.warmed: list[tuple] = []
        self.loads = 0

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *args, **meta: self.ran.append((grid, args, meta))

    def warmup(self, *args: object, grid: tuple[int, ...], **meta: object) -> None:
        self.warmed.append((grid, args, meta))

    def _init_handles(self) -> None:
        self.loads += 1


def test_launch_builds_with_the_arguments_of_a_run() -> None:
    """Else the run would need another build; outside, the kernel runs again."""
    kernel, x = FakeKernel(), torch.zeros(4)
    with launching_by(Builds()):
        launch(kernel, (2,), x, 5, BLOCK=8, num_warps=4)
        assert only_builds()
    launch(kernel, (2,), x, 5, BLOCK=8, num_warps=4)

    assert not only_builds()
    assert kernel.warmed == kernel.ran == [((2,), (x, 5), kernel.ran[0][2])]


def test_builds_ask_once_for_what_is_one_build() -> None:
    """Types, constants, 1 and multiples of 16 make a build; other numbers and sizes do not."""
    x = torch.zeros(64)
    same = [(x, 3), (x[:4], 7), (torch.ones(2, 2), 5)]
    other = [(x, 1), (x, 32), (x, 2**40 + 1), (x.half(), 3), (x[1:], 3), (None, 3), (x, 3.0)]
    kernel, builds = FakeKernel(), Builds()
    for args in same + other:
        builds(kernel, (1,), args, {"BLOCK": 8})
    builds(kernel, (1,), (x, 3), {"BLOCK": 16})

    assert len(kernel.warmed) == 1 + len(other) + 1


def test_built_kernels_are_loaded_by_the_thread_that_built_them() -> None:
    """And an error of the build arrives with its future."""
    kernel = FakeKernel()
    with ThreadPoolExecutor(2) as pool:
        built = _Loading(pool).submit(lambda: kernel)
        failed = _Loading(pool).submit(lambda: 1 // 0)

    assert built.result() is kernel
    assert kernel.loads == 1
    assert isinstance(failed.exception(), ZeroDivisionError)
