"""Builds tiny pairs on fused operators, beside our plain decoder on the same checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.target import CudaTarget
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.models.checkpoint import Checkpoint
from gemmarunner.models.drafter import Drafter
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.target import Target
from gemmarunner.models.weights import Take
from tests.fakes.tiny_models import SHAPES, checkpoint_files

VOCAB = 128
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


class Pairs(NamedTuple):
    """The same weights in both decoders."""

    plain: Target
    plain_drafter: Drafter
    target: CudaTarget
    drafter: CudaDrafter

    def backend(self, **wanted: object) -> CudaBackend:
        """A backend of the pair on fused operators."""
        settings = {"num_ctx": 256, "slots": 3, "max_depth": 4, "max_rows": 64} | wanted
        return CudaBackend(self.target, self.drafter, **settings)  # type: ignore[arg-type]


def build(shape: str, directory: Path) -> Pairs:
    """The pair of a tiny shape, in float32 on the CPU."""
    SHAPES[shape](directory, 0)
    files = [checkpoint_files(directory / part) for part in ("target", "assistant")]
    plain, plain_drafter = load_target(files[0], "cpu"), load_drafter(files[1], "cpu")
    plain_drafter.bind(plain)
    cpu = torch.device("cpu")
    target = CudaTarget(plain.config, taking(files[0], "model."), cpu, torch.float32)
    drafter = CudaDrafter(plain_drafter.config, taking(files[1], ""), target)
    return Pairs(plain, plain_drafter, target, drafter)


def taking(files: dict[str, Path], prefix: str) -> Take:
    """Tensors of a checkpoint in float32."""
    checkpoint = Checkpoint(files)

    def take(name: str, shape: tuple[int, ...], *, stored: bool = False) -> torch.Tensor:
        tensor = checkpoint.read(prefix + name, shape)
        return tensor.float() if tensor.is_floating_point() and not stored else tensor

    return take


def text(count: int, seed: int = 1) -> list[int]:
    """Random token ids."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (count,), generator=generator).tolist()


def sampler(suppress: tuple[int, ...] = (), **settings: object) -> Sampler:
    """A request's sampler for the tiny vocabulary."""
    return Sampler(Sampling(**settings), vocab=VOCAB, suppress_ids=suppress)  # type: ignore[arg-type]


def begun(backend: CudaBackend, slot: int, prompt: Sequence[int], by: Sampler) -> list[int]:
    """The prompt read in chunks, and the text with its first chosen token."""
    rest = list(prompt[backend.length(slot) :])
    while rest:
        backend.prefill(slot, rest[: backend.max_rows])
        rest = rest[backend.max_rows :]
    return [*prompt, backend.first(slot, list(prompt), by)]


def grown(
    backend: CudaBackend, texts: list[list[int]], by: list[Sampler], depths: list[list[int]]
) -> list[list[int]]:
    """The texts after a round for each entry of `depths`, one depth a text."""
    for wanted in depths:
        plans = [
            RoundPlan(slot, text, own, depth)
            for slot, (text, own, depth) in enumerate(zip(texts, by, wanted, strict=True))
        ]
        result = backend.launch(plans).wait()
        texts = [text + new for text, new in zip(texts, result.tokens, strict=True)]
    return texts
