"""Fused operators run a pair whose matrices come packed out of a GGUF file."""

from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.target import CudaTarget
from gemmarunner.kernels.launch import launching_by
from gemmarunner.models.loader import load_target
from gemmarunner.models.opening import open_drafter, open_target
from gemmarunner.quant.formats import Packed
from gemmarunner.quant.stacked import Stacked
from tests.fakes import tiny_models
from tests.fakes.gguf_pairs import Writing, write_gguf
from tests.unit.cuda.cuda_pairs import begun, grown, sampler, text

MIXED = Writing(kind=Kind.Q4_K, kinds={"attn_v.weight": Kind.Q6_K, "ffn_up.weight": Kind.Q8_0})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Path]]:
    """Target and drafter of rows of 256, in mixed types."""
    directory = tmp_path_factory.mktemp("packed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_models, "HIDDEN", 256)
        tiny_models.e2b(directory)
    return [
        write_gguf(directory / half, directory / f"{half}.gguf", MIXED)
        for half in ("target", "assistant")
    ]


def opened(files: list[dict[str, Path]], seen: list[object]) -> tuple[CudaTarget, CudaDrafter]:
    """The pair on fused operators; `seen` gets what every matrix is kept as."""

    def pack(name: str, matrix: object) -> object:
        seen.append(matrix)
        return matrix

    with open_target(files[0], "cpu", torch.float32, fused=True) as found:
        target = CudaTarget(*found, pack=pack)  # type: ignore[arg-type]
    with open_drafter(files[1], "cpu", torch.float32, fused=True) as found:
        drafter = CudaDrafter(found.config, found.take, target)
    return target, drafter


def test_packed_matrices_reach_the_operators(files: list[dict[str, Path]]) -> None:
    """Packed in the file, packed when multiplied, also where a product mixes types."""
    seen: list[object] = []
    opened(files, seen)

    assert any(isinstance(matrix, Packed) for matrix in seen)
    assert any(isinstance(matrix, Stacked) for matrix in seen)


def test_packed_pair_says_what_the_plain_decoder_says(files: list[dict[str, Path]]) -> None:
    """Greedy texts with and without drafts are those of torch's operators on the same file."""
    target, drafter = opened(files, [])
    backend = CudaBackend(target, drafter, num_ctx=64, slots=2, max_depth=4, max_rows=64)
    by, prompt = sampler(temperature=0.0), text(9)
    begins = [begun(backend, slot, prompt, by) for slot in range(2)]
    found = grown(backend, begins, [by, by], [[3, 0]] * 6)
    ids = torch.tensor(prompt)
    plain = load_target(files[0], "cpu", torch.float32)

    shorter = min(map(len, found))
    assert found[0][:shorter] == found[1][:shorter]
    assert found[0][len(prompt)] == first_of(plain, ids)


def first_of(plain: object, ids: torch.Tensor) -> int:
    """The token that the plain decoder chooses after a prompt."""
    from gemmarunner.engine.kvcache import KVCache

    cache = KVCache(plain.config, 64, 64, plain.device, plain.dtype)  # type: ignore[attr-defined]
    hidden = plain.forward(ids, cache, keep=1)  # type: ignore[attr-defined]
    return int(plain.logits(hidden)[0].argmax())  # type: ignore[attr-defined]


def test_drafts_without_meaning_read_no_row(files: list[dict[str, Path]]) -> None:
    """While kernels are only built, drafts are whatever memory holds: a packed table bears that."""
    target, _ = opened(files, [])
    with launching_by(lambda *_: None):
        found = target.embed_for_draft(torch.tensor([2**62, -(2**62)]))

    assert found.shape == (2, target.config.hidden)
