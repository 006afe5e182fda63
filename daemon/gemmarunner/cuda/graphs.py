"""Rounds captured as CUDA graphs, one for each batch size and depth; without CUDA, plain calls.

The copies of a round's inputs and of its tokens are no parts of its graph: a graph that follows
another reads where that one left off, and their tokens go to different places on the host.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from gemmarunner.cuda.inputs import Inputs
from gemmarunner.cuda.round import CudaRound, RoundOutputs
from gemmarunner.cuda.seams import Chain, Lane, Outputs, Recorder
from gemmarunner.kernels.linear import MAX_TILE


class Shape(NamedTuple):
    """What a graph is captured for."""

    batch: int
    depth: int


class Capturer:
    """Captures functions as graphs that share one memory pool, and so are run one after another."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lanes: dict[torch.device, Lane] = {}

    @torch.inference_mode()
    def __call__(self, run: Callable[[], Outputs]) -> tuple[Chain, Outputs]:
        """Calls `run` plainly, which loads its kernels, and then once more into a graph."""
        stream = self._lane(self._device).stream
        current = torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            run()
        current.wait_stream(stream)
        return self.capture(run)

    @torch.inference_mode()
    def capture(self, run: Callable[[], Outputs]) -> tuple[Chain, Outputs]:
        """`run`, whose kernels are loaded, as a graph; nothing is computed.

        Not by `torch.cuda.graph`, which empties torch's memory cache before every capture.
        """
        return Recorder(self._lane, torch.cuda.CUDAGraph)(run, self._device)

    def _lane(self, device: torch.device) -> Lane:
        if device not in self._lanes:
            stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._lanes[device] = Lane(stream, torch.cuda.graph_pool_handle())
        return self._lanes[device]


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
    ) -> None:
        self._run = run
        self._inputs = inputs
        self._batches = batches
        self._max_depth = max_depth
        self._device = device
        self.drafts = True  # whether rounds may draft; written by the backend
        self._captured: dict[Shape, tuple[Chain, RoundOutputs]] = {}
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
        """Begins a round of what the inputs' fields say on the device."""
        if self._device.type != "cuda":
            return self.run_plainly(shape)
        if shape in self._captured:
            graph, outputs = self._captured[shape]
            graph.replay()
            return outputs
        outputs = self.run_plainly(shape)  # a trial would move the slots on
        self._captured[shape] = self._capturer(shape).capture(lambda: self.run_plainly(shape))
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
        self._inputs.send()
        if self._device.type == "cuda":
            self._captured[shape] = self._capturer(shape)(lambda: self.run_plainly(shape))
        else:
            self.run_plainly(shape)

    def clear_drafting(self) -> None:
        """Frees the graphs that draft."""
        self._captured = {s: graph for s, graph in self._captured.items() if s.depth == 0}
        self._drafting = Capturer(self._device)

    def clear(self) -> None:
        """Frees the graphs."""
        self.clear_drafting()
        self._captured.clear()
        self._plain = Capturer(self._device)

    def _capturer(self, shape: Shape) -> Capturer:
        return self._drafting if shape.depth else self._plain
