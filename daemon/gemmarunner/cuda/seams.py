"""Hands rows from one device to the next, where a target's layers are split over several.

    called plainly     x.to(device): torch orders the copy between both devices' streams
    being captured     [graph on A] -> copies -> [graph on B] -> copies -> [graph on A]

A graph belongs to one device. So at a seam the graph ends, and the next one begins on the other
device with buffers of its own as inputs; a `Chain` plays graphs and copies one behind the other.
Each copy waits for what is before it, and what is behind waits for the copy: on the devices, never
on the host.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gemmarunner.kernels.launch import only_builds

Outputs = TypeVar("Outputs")
HandOver = Callable[[Sequence[Tensor], torch.device], list[Tensor]]


def hand_over(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The same on `device`, where all that follows has to run."""
    return _hand_over.get()(tensors, device)


def _copied(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


_hand_over: ContextVar[HandOver] = ContextVar("hand_over", default=_copied)


@contextlib.contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Kernels that are launched inside run there; those that are only built, for where they are."""
    if device.type != "cuda" or only_builds():
        yield
        return
    with torch.cuda.device(device):
        yield


class Lane(NamedTuple):
    """What captures on one device share."""

    stream: Any  # captures need one that is not the default
    pool: Any


class Chain:
    """Graphs of one function, one behind the other, each on its device."""

    def __init__(self) -> None:
        self._links: list[Callable[[], object]] = []

    def replay(self) -> None:
        """Enqueues all of them."""
        for link in self._links:
            link()

    def add_graph(self, graph: Any) -> None:
        """`graph` is played next, on the device that it was captured on."""
        self._links.append(graph.replay)

    def add_copies(self, tensors: Sequence[Tensor], there: Sequence[Tensor]) -> None:
        """Then what it left goes into the inputs of the next one."""

        def copy() -> None:
            for target, source in zip(there, tensors, strict=True):
                target.copy_(source, non_blocking=True)

        self._links.append(copy)


class Recorder:
    """Captures one function as a chain."""

    def __init__(self, lane_of: Callable[[torch.device], Lane], new_graph: Callable[[], Any]):
        self._lane_of = lane_of
        self._new_graph = new_graph
        self._chain = Chain()

    def __call__(self, run: Callable[[], Outputs], device: torch.device) -> tuple[Chain, Outputs]:
        """`run`, which begins and ends on `device`."""
        with contextlib.ExitStack() as inside:
            self._inside = inside
            self._begin(device)
            token = _hand_over.set(self._hand_over)
            try:
                outputs = run()
            finally:
                _hand_over.reset(token)
            self._end()
        return self._chain, outputs

    def _hand_over(self, tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
        self._end()
        there = [torch.empty_like(tensor, device=device) for tensor in tensors]
        self._chain.add_copies(tensors, there)
        self._begin(device)
        return there

    def _begin(self, device: torch.device) -> None:
        lane = self._lane_of(device)
        self._inside.enter_context(torch.cuda.stream(lane.stream))
        self._graph = self._new_graph()
        self._graph.capture_begin(pool=lane.pool, capture_error_mode="thread_local")

    def _end(self) -> None:
        self._graph.capture_end()
        self._chain.add_graph(self._graph)
        self._inside.close()
