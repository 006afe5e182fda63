"""Rounds as graphs on an accelerator: what the plain decoder says, and no word more by drafting."""

from pathlib import Path

import pytest
import torch

from gemmarunner.cuda.backend import CudaBackend
from gemmarunner.cuda.graphs import Shape
from gemmarunner.cuda.inputs import Ask
from gemmarunner.cuda.loading import load_cuda_pair
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import RoundPlan
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler
from gemmarunner.kernels.penalise import Bending, penalise, penalise_slow
from gemmarunner.models.loader import load_target
from tests.fakes.bent_rows import scene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NANO = Path(__file__).parents[2] / "modelfiles/gemmamodelfiles/nano"
GREEDY = Sampling(temperature=0.0)
SAMPLED = Sampling(temperature=1.0, top_k=64, top_p=0.95, seed=7)
PENALISED = Sampling(temperature=1.0, seed=7, repeat_penalty=1.2, frequency_penalty=0.1)
CONTEXT = 2048
BF16 = torch.bfloat16


def files(part: str) -> dict[str, Path]:
    """The shipped pair's files by name."""
    return {path.name: path for path in sorted((NANO / part).iterdir()) if path.is_file()}


def nano(slots: int = 1) -> CudaBackend:
    """The shipped pair in bf16, with all its graphs."""
    backend = load_cuda_pair(
        files("target"), files("drafter"), "cuda", BF16, num_ctx=CONTEXT, slots=slots, max_depth=8
    )
    backend.warm(lambda done, total: None)
    return backend


def prompt(seed: int, count: int = 600) -> list[int]:
    """Random tokens, past the sliding window."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(107, 8192, (count,), generator=generator).tolist()


def sampler(backend: CudaBackend, sampling: Sampling) -> Sampler:
    """A request's sampler."""
    return Sampler(sampling, vocab=backend.vocab_size, device=backend.device)


def written(
    backend: CudaBackend, prompts: list[list[int]], by: Sampler, depths: list[int], length: int
) -> list[list[int]]:
    """`length` new tokens for each prompt, all side by side, at a depth each."""
    texts = []
    for slot, tokens in enumerate(prompts):
        backend.truncate(slot, 0)
        backend.prefill(slot, tokens)
        texts.append([*tokens, backend.first(slot, tokens, by)])
    while min(len(t) - len(p) for t, p in zip(texts, prompts, strict=True)) < length:
        plans = [RoundPlan(i, text, by, depths[i]) for i, text in enumerate(texts)]
        new = backend.launch(plans).wait().tokens
        texts = [text + more for text, more in zip(texts, new, strict=True)]
    return [t[len(p) : len(p) + length] for t, p in zip(texts, prompts, strict=True)]


def test_step_and_prompt_equal_the_plain_decoder() -> None:
    """Logits after a prompt in chunks and after single steps, within what bf16 leaves."""
    backend, tokens = nano(), prompt(1)
    plain = load_target(files("target"), "cuda", torch.float32)
    cache = KVCache(plain.config, 1024, 1024, plain.device, plain.dtype)
    by = sampler(backend, GREEDY)
    with torch.inference_mode():
        expected = plain.logits(plain.forward(torch.tensor(tokens, device="cuda"), cache))
    for chunks in ([600], [100, 400, 100], [5, 33, 62, 500], [500, *[1] * 100]):
        backend.truncate(0, 0)
        begin = 0
        for count in chunks:
            backend.prefill(0, tokens[begin : begin + count])
            begin += count
        backend.first(0, tokens, by)
        ours = backend._target.logits(backend._slots.hidden[:1])

        assert torch.cosine_similarity(ours[0], expected[-1], 0) > 0.995
        assert (ours[0] - expected[-1]).abs().mean() < 0.02 * expected[-1].abs().max()


@torch.inference_mode()
def test_replayed_graph_equals_plain_calls() -> None:
    """The same inputs through a graph and through the round's own function, bit for bit."""
    backend, tokens = nano(2), prompt(2)
    by = sampler(backend, SAMPLED)
    for depth in (0, 1, 4, 8):
        found = []
        for plainly in (True, False):
            for slot in (0, 1):
                backend.truncate(slot, 0)
                backend.prefill(slot, tokens)
                backend.first(slot, tokens, by)
                backend._slots.write_ahead(slot, depth + 1)
            asks = [Ask(slot, 600, 1000 + slot, depth, by) for slot in (0, 1)]
            backend._inputs.write(asks, 2)
            backend._inputs.send()
            graphs = backend._graphs
            fields = backend._inputs.fields(2)
            out = graphs._run(fields, depth) if plainly else graphs(Shape(2, depth))
            found.append([part.clone() for part in out] + [backend._slots.hidden.clone()])

        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), depth


@torch.inference_mode()
def test_prompt_tail_graph_equals_plain_calls() -> None:
    """The last row of prompts in two slots, by the graph and call by call, bit for bit."""
    backend = nano(2)
    for slot, count in ((0, 1), (1, 20), (0, 600)):
        backend.truncate(slot, 0)
        backend.prefill(slot, prompt(slot, count))
        tail = backend._tails.pop(slot)
        graph = [part.clone() for part in backend._finish(tail)]

        assert all(map(torch.equal, graph, backend._finish.run_plainly(tail)))


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_drafting_changes_no_word_in_bf16(sampling: Sampling) -> None:
    """10,000 tokens, depth 0 against 1 to 8: not one differs."""
    backend = nano()
    by, differing = sampler(backend, sampling), []
    for seed in range(8):
        [plain] = written(backend, [prompt(seed)], by, [0], 1250)
        for depth in range(1, 9) if seed < 2 else (1 + seed,):
            [drafted] = written(backend, [prompt(seed)], by, [depth], 1250)
            if plain != drafted:
                first = next(i for i in range(1250) if plain[i] != drafted[i])
                differing.append((seed, depth, first))

    assert not differing


def test_company_changes_no_word_in_bf16() -> None:
    """Three sequences side by side, at depths of their own, write what each writes alone."""
    backend, prompts = nano(4), [prompt(seed, 100 * seed) for seed in (1, 3, 6)]
    by = sampler(backend, GREEDY)
    alone = [written(backend, [one], by, [0], 400)[0] for one in prompts]

    assert written(backend, prompts, by, [0, 3, 8], 400) == alone


@pytest.mark.parametrize(
    "sampling", [GREEDY, SAMPLED, PENALISED], ids=["greedy", "sampled", "penalised"]
)
def test_rounds_behind_others_change_no_word_in_bf16(sampling: Sampling) -> None:
    """Three sequences, 400 tokens each, depths that change: begun early, and one after another."""
    backend, prompts = nano(4), [prompt(seed, 100 * seed) for seed in (1, 3, 6)]
    by = sampler(backend, sampling)
    expected = written(backend, prompts, by, [0, 3, 8], 400)
    texts = []
    for slot, tokens in enumerate(prompts):
        backend.truncate(slot, 0)
        backend.prefill(slot, tokens)
        texts.append([*tokens, backend.first(slot, tokens, by)])

    def plans(turn: int) -> list[RoundPlan]:
        return [RoundPlan(i, text, by, (turn * (i + 1)) % 9) for i, text in enumerate(texts)]

    pending, turn = backend.launch(plans(0)), 0
    while min(len(t) - len(p) for t, p in zip(texts, prompts, strict=True)) < 400:
        turn += 1
        behind = backend.follow(plans(turn // 3))
        assert behind is not None
        for text, new in zip(texts, pending.wait().tokens, strict=True):
            text += new
        pending = behind

    assert [t[len(p) : len(p) + 400] for t, p in zip(texts, prompts, strict=True)] == expected


@torch.inference_mode()
def test_penalties_are_those_of_the_twin() -> None:
    """Bit for bit, with and without drafts."""
    for seed in range(6):
        logits, drafts, _, how = scene(seed, seed % 4)
        there = logits.cuda()

        penalise(there, drafts.cuda(), Bending(*(part.cuda() for part in how)))
        penalise_slow(logits, drafts, how)

        assert torch.equal(there.cpu(), logits), seed


def test_restored_slot_goes_on_alike() -> None:
    """A snapshot taken into another slot writes the same text."""
    backend, tokens = nano(2), prompt(4)
    by, texts = sampler(backend, GREEDY), []
    backend.prefill(0, tokens[:599])
    backend.restore(1, backend.snapshot(0))
    for slot in (0, 1):
        backend.prefill(slot, tokens[599:])
        text = [*tokens, backend.first(slot, tokens, by)]
        while len(text) < 800:
            text += backend.launch([RoundPlan(slot, text, by, 4)]).wait().tokens[0]
        texts.append(text[:800])

    assert texts[0] == texts[1]
