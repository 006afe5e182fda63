"""Rounds captured as CUDA graphs, one for each batch size and depth; without CUDA, plain calls.

The copies of a round's inputs and of its tokens are parts of its graph: each would else be a call
of its own, for which the device waits.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gemmarunner.cuda.inputs import Inputs
from gemmarunner.cuda.round import CudaRound, RoundOutputs
from gemmarunner.kernels.linear import MAX_TILE

Outputs = TypeVar("Outputs")


class Shape(NamedTuple):
    """What a graph is captured for."""

    batch: int
    depth: int


class Capturer:
    """Captures functions as graphs that share one memory pool, and so are run one after another."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: Any = None  # captures need one that is not the default

    @torch.inference_mode()
    def __call__(self, run: Callable[[], Outputs]) -> tuple[torch.cuda.CUDAGraph, Outputs]:
        """Calls `run` plainly, which loads its kernels, and then once more into a graph.

        Not by `torch.cuda.graph`, which empties torch's memory cache before every capture.
        """
        current: Any = torch.cuda.current_stream(self._device)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            run()
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            outputs = run()
            graph.capture_end()
        current.wait_stream(self._stream)
        return graph, outputs


def _size(shape: Shape) -> tuple[int, int]:
    return shape.batch * (shape.depth + 1), shape.batch


class RoundGraphs:
    """Runs rounds of a few shapes; on a GPU each is captured once and then replayed.

    The captures share a memory pool, so what a round leaves is valid until the next round. Those
    that draft have one of their own, which can be freed while the others stay.
    """

    def __init__(
        self,
        run: CudaRound,
        inputs: Inputs,
        batches: Sequence[int],
        max_depth: int,
        device: torch.device,
        found: Tensor,
    ) -> None:
        """`found`, int64 on the host, takes what a round brings; pinned where there is a GPU."""
        self._run = run
        self._inputs = inputs
        self._batches = batches
        self._max_depth = max_depth
        self._found = found
        self._device = device
        self.drafts = True  # whether rounds may draft; written by the backend
        self._captured: dict[Shape, tuple[torch.cuda.CUDAGraph, RoundOutputs]] = {}
        self._plain, self._drafting = Capturer(device), Capturer(device)

    @property
    def shapes(self) -> list[Shape]:
        """Every shape that a round may have, the most rows first."""
        found = [Shape(batch, 0) for batch in self._batches]
        if self.drafts:
            found += self.drafting_shapes
        return sorted(found, key=_size, reverse=True)

    @property
    def drafting_shapes(self) -> list[Shape]:
        """Those for which a drafter is needed, the most rows first."""
        found = [Shape(b, depth) for b in self._batches for depth in range(1, self._most(b) + 1)]
        return sorted(found, key=_size, reverse=True)

    def bucket(self, sequences: int) -> int:
        """The batch size that `sequences` run in."""
        return next(batch for batch in self._batches if batch >= sequences)

    def deepest(self, batch: int) -> int:
        """The greatest depth of a batch now."""
        return self._most(batch) if self.drafts else 0

    def _most(self, batch: int) -> int:
        """Beyond `MAX_TILE` rows results would depend on others."""
        return max(0, min(self._max_depth, MAX_TILE // batch - 1))

    def __call__(self, shape: Shape) -> RoundOutputs:
        """Begins a round of what was written into the inputs; its tokens go into `found`."""
        if self._device.type != "cuda":
            return self._whole(shape)
        if shape not in self._captured:
            self._capture(shape)
        graph, outputs = self._captured[shape]
        graph.replay()
        return outputs

    @torch.inference_mode()
    def warm(self, report: Callable[[int, int], None]) -> None:
        """Builds every shape; the inputs must name slots that nobody needs the contents of."""
        shapes = self.shapes
        for done, shape in enumerate(shapes):
            report(done, len(shapes))
            if self._device.type == "cuda" or done == 0:
                self.build(shape)
        report(len(shapes), len(shapes))

    @torch.inference_mode()
    def run_plainly(self, shape: Shape) -> RoundOutputs:
        """Runs a round call by call."""
        return self._run(self._inputs.fields(shape.batch), shape.depth)

    @torch.inference_mode()
    def build(self, shape: Shape) -> None:
        """A graph of `shape` is there; the inputs must name what it may write over once."""
        if self._device.type == "cuda":
            self._capture(shape)
        else:
            self._whole(shape)

    def clear_drafting(self) -> None:
        """Frees the graphs that draft."""
        self._captured = {s: graph for s, graph in self._captured.items() if s.depth == 0}
        self._drafting = Capturer(self._device)

    def clear(self) -> None:
        """Frees the graphs."""
        self.clear_drafting()
        self._captured.clear()
        self._plain = Capturer(self._device)

    def _capture(self, shape: Shape) -> None:
        capturer = self._drafting if shape.depth else self._plain
        self._captured[shape] = capturer(lambda: self._whole(shape))

    def _whole(self, shape: Shape) -> RoundOutputs:
        self._inputs.send()
        outputs = self.run_plainly(shape)
        packed = outputs.packed
        self._found[: packed.numel()].view(packed.shape).copy_(packed, non_blocking=True)
        return outputs
