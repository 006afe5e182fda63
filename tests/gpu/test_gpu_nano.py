"""The built-in pair on an accelerator: the same numbers and the same words as on the CPU."""

import time
from collections.abc import Iterator

import pytest
import torch

from gemmarunner.cuda.loading import load_cuda_pair
from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import Backend
from gemmarunner.engine.request import Sampling
from gemmarunner.models.loader import load_drafter, load_target
from tests.bench.skills import NANO, answered, files
from train.skills import items

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
GREEDY = Sampling(temperature=0.0, num_predict=96)
EOS = frozenset({1, 106, 50})


def plain_backend() -> Backend:
    """The shipped pair in float32 on torch's own operators."""
    target = load_target(files("target"), "cuda", torch.float32, None)
    drafter = load_drafter(files("drafter"), "cuda", torch.float32, None)
    drafter.bind(target)
    return EagerBackend(target, drafter, num_ctx=2048, max_depth=8)


def fused_backend() -> Backend:
    """The shipped pair in bf16 on fused kernels."""
    backend = load_cuda_pair(
        files("target"), files("drafter"), "cuda", torch.bfloat16, num_ctx=2048, max_depth=8
    )
    backend.warm(lambda *_: None)
    return backend


@pytest.fixture(scope="module", params=[plain_backend, fused_backend], ids=["float32", "fused"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """An engine on each way of running the pair."""
    return Engine(request.param(), eos_ids=EOS)


def prompts(count: int) -> Iterator[list[int]]:
    """Rendered questions of several skills as token ids."""
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(
        str(NANO / "target/tokenizer.json")
    )
    for skill in ("howto", "json", "story", "tool"):
        for item in items(skill, "values", count // 4, 5):
            yield tokenizer.encode(item.prompt, add_special_tokens=False).ids


def test_logits_equal_the_cpus() -> None:
    """In float32 the accelerator computes what the CPU computes, past the sliding window too."""
    tokens = torch.randint(107, 8192, (600,), generator=torch.Generator().manual_seed(1))
    found = []
    for device in ("cpu", "cuda"):
        target = load_target(files("target"), device, torch.float32, None)
        cache = KVCache(target.config, 1024, 256, target.device, target.dtype)
        with torch.inference_mode():
            for chunk in tokens.split(200):
                hidden = target.forward(chunk.to(device), cache)
            found.append(target.logits(hidden).cpu())

    torch.testing.assert_close(found[1], found[0], atol=2e-3, rtol=1e-3)


def test_drafting_changes_no_word(engine: Engine) -> None:
    """Greedy answers with drafts equal those without, in bf16 too where kernels are fused."""
    texts: dict[int, list[list[int]]] = {0: [], 4: []}
    spent = {0: 0.0, 4: 0.0}
    for prompt in prompts(40):
        for depth in (0, 4):
            begun = time.perf_counter()
            texts[depth].append(answered(engine, prompt, GREEDY, depth)[0])
            spent[depth] += time.perf_counter() - begun
    print(f"depth 4 took {spent[4] / spent[0]:.2f} of plain time")

    assert len(texts[0]) == 40
    assert texts[0] == texts[4]


def test_sampled_text_is_the_same_at_every_depth(engine: Engine) -> None:
    """With a seed, drafts change no word of a sampled answer."""
    sampling = Sampling(temperature=1.0, top_k=64, top_p=0.95, seed=7, num_predict=96)
    pairs = [[answered(engine, p, sampling, depth)[0] for depth in (0, 3)] for p in prompts(20)]

    assert [a for a, _ in pairs] == [b for _, b in pairs]
