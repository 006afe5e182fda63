"""Files of other formats on an accelerator: their own numbers, and no word changed by drafting."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.cuda.loading import load_cuda_pair
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.models.loader import load_target

gguf = pytest.importorskip("gguf")
from tests.fakes.gguf_pairs import Writing, write_gguf  # noqa: E402 - needs gguf
from tests.unit.models.test_models_compressed import W4A16, words_of  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NANO = Path(__file__).parents[2] / "modelfiles/gemmamodelfiles/nano"
BF16 = torch.bfloat16
Kind = gguf.GGMLQuantizationType
GROUP = 32
Files = Mapping[str, Path]


def prompt() -> list[int]:
    """Random tokens, past the sliding window."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(107, 8192, (400,), generator=generator).tolist()


def check(target: Files, drafter: Files | None) -> None:
    """Logits are those of the same file in plain float32; depths 1, 3 and 8 change no word."""
    tokens = prompt()
    plain = load_target(target, "cuda", torch.float32)
    cache = KVCache(plain.config, 512, 512, plain.device, plain.dtype)
    with torch.inference_mode():
        expected = plain.logits(plain.forward(torch.tensor(tokens, device="cuda"), cache))[-1]
    backend = load_cuda_pair(target, drafter, "cuda", BF16, num_ctx=1024, max_depth=8)
    backend.warm(lambda *_: None)
    texts = [written(backend, tokens, depth) for depth in (0, 1, 3, 8)]
    backend.truncate(0, 0)
    backend.prefill(0, tokens)
    backend.first(0, tokens, Sampler(Sampling(), vocab=backend.vocab_size, device=backend.device))
    ours = backend._target.logits(backend._slots.hidden[:1])[0]

    assert torch.cosine_similarity(ours, expected, 0) > 0.99
    assert (ours - expected).abs().mean() < 0.03 * expected.abs().max()
    assert drafter is None or all(text == texts[0] for text in texts)


def written(backend: CudaBackend, tokens: list[int], depth: int) -> list[int]:
    """300 greedy tokens."""
    sampling = Sampling(temperature=0.0)
    by = Sampler(sampling, vocab=backend.vocab_size, device=backend.device)
    backend.truncate(0, 0)
    backend.prefill(0, tokens)
    text = [*tokens, backend.first(0, tokens, by)]
    while len(text) < len(tokens) + 300:
        text += backend.launch([RoundPlan(0, text, by, depth)]).wait().tokens[0]
    return text[len(tokens) : len(tokens) + 300]


@pytest.mark.parametrize("kind", [Kind.BF16, Kind.Q8_0, Kind.Q4_0])
def test_gguf_pair_on_a_gpu_is_its_plain_twin(tmp_path: Path, kind: object) -> None:
    """The built-in pair as GGUF: target and drafter in one type."""
    how = Writing(kind=kind)  # type: ignore[arg-type]
    halves = [
        write_gguf(NANO / half, tmp_path / f"{half}.gguf", how) for half in ("target", "drafter")
    ]
    check(*halves)


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q5_K, Kind.Q6_K])
def test_gguf_k_types_on_a_gpu_are_their_plain_twins(tmp_path: Path, kind: object) -> None:
    """Rows of 256 and 512 columns in a K type (random codes), the others in Q8_0."""
    long = ("attn_output.weight", "ffn_down.weight")
    how = Writing(kind=Kind.Q8_0, kinds=dict.fromkeys(long, kind))  # type: ignore[arg-type]
    check(write_gguf(NANO / "target", tmp_path / "target.gguf", how), None)


def test_compressed_tensors_on_a_gpu_are_their_plain_twin(tmp_path: Path) -> None:
    """The built-in target in w4a16: as in float32, and kept packed."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(NANO / "target/model.safetensors").items():
        tensors |= compressed(name, tensor) if name.endswith("_proj.weight") else {name: tensor}
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((NANO / "target/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": W4A16}))
    files = {path.name: path for path in tmp_path.iterdir() if path.is_file()}
    check(files, {p.name: p for p in (NANO / "drafter").iterdir()})


def compressed(name: str, weight: Tensor) -> dict[str, Tensor]:
    """A matrix [N, K] in 4 bits, a scale for each group of 32."""
    if weight.ndim != 2 or weight.shape[1] % GROUP or "per_layer" in name:
        return {name: weight}
    groups = weight.float().unflatten(1, (-1, GROUP))
    scale = (groups.abs().amax(-1, keepdim=True) / 7).to(BF16)
    codes = (groups / scale.float()).round().clamp(-8, 7).flatten(1).to(torch.int8)
    return {
        f"{name}_packed": words_of(codes, 4),
        f"{name}_scale": scale[..., 0].contiguous(),
        f"{name}_shape": torch.tensor(codes.shape),
    }
