"""Tokens chosen by the kernel's rules equal those of the engine's sampler, row by row."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.engine.noise import log_uniform, stream_key
from gemmarunner.engine.request import Sampling
from gemmarunner.engine.sampling import Sampler, Stream
from gemmarunner.kernels import noise
from gemmarunner.kernels.choose import MAX_LIST, Choosing, choose_slow, draft_slow, fits

VOCAB = 5000  # more than one launch takes on its own


def choosing(*requests: Sampling, position: int = 7) -> Choosing:
    """The device's form of some requests, all at `position`."""
    keys = [stream_key(request.seed or 0, Stream.CHOICE) for request in requests]
    return Choosing(
        torch.tensor([request.temperature for request in requests]),
        torch.tensor([request.top_k for request in requests], dtype=torch.int32),
        torch.tensor([request.top_p for request in requests]),
        torch.tensor([request.min_p for request in requests]),
        torch.tensor([key - (1 << 64) if key >> 63 else key for key in keys]),
        torch.full((len(requests),), position, dtype=torch.int32),
    )


def by_sampler(logits: torch.Tensor, request: Sampling, position: int) -> list[int]:
    """What the engine's sampler chooses."""
    sampler = Sampler(request, vocab=logits.shape[1])
    return sampler.choose(logits.clone(), None, position).tolist()


KINDS = ("random", "coarse", "peaked", "flat", "one hot", "masked", "rising")


def rows_of(kind: str, rows: int, columns: int, seed: int) -> torch.Tensor:
    """Logits of one nature."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, columns, generator=generator) * 4
    match kind:
        case "coarse":
            return x.round()
        case "peaked":
            x[:, ::971] += 20
        case "flat":
            x[:, ::9] = 30.0
            x[:, 1:] = x[:, 1:].where(x[:, 1:] == 30.0, -30.0)
        case "one hot":
            x = torch.nn.functional.one_hot(x.argmax(-1), columns) * 200.0
        case "masked":
            x[:, 3:] = -torch.inf
        case "rising":
            x = x.sort(-1).values
    return x


requests = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-3, 0.7, 1.0, 1.3]),
    top_k=st.sampled_from([1, 2, 5, 40, 64, 128]),
    top_p=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    seed=st.integers(0, 2**64 - 1),
)


@settings(max_examples=60, deadline=None)
@given(requests, st.sampled_from(KINDS), st.sampled_from([48, 1000]), st.integers(0, 99))
def test_twin_chooses_what_the_sampler_chooses(
    request: Sampling, kind: str, columns: int, seed: int
) -> None:
    """The twin's tokens are the sampler's, whatever the settings and the rows."""
    logits = rows_of(kind, 3, columns, seed)

    tokens, overflow = choose_slow(logits, choosing(request), 3)

    assert by_sampler(logits, request, 7) == tokens.tolist()
    assert not overflow.any()


def test_noise_is_that_of_the_engine() -> None:
    """The numbers of a place are those the sampler draws with."""
    key = stream_key(5, 0)
    ids = torch.arange(3000).expand(2, -1)
    keys = torch.tensor([key - (1 << 64) if key >> 63 else key]).expand(2)

    here = noise.log_uniform(keys, torch.tensor([131071, 131072]), ids)

    assert torch.equal(log_uniform(key, 131071, ids), here)


def test_only_requests_with_a_small_top_k_fit() -> None:
    """A request that needs a long list is chosen elsewhere."""
    misfits = [Sampling(top_k=0), Sampling(top_k=129)]

    assert fits(Sampling())
    assert fits(Sampling(temperature=0, top_k=0))
    assert not any(fits(request) for request in misfits)


def test_suppressed_tokens_are_never_chosen() -> None:
    """The likeliest token falls out when it is suppressed."""
    logits = rows_of("random", 2, 100, 0)
    greedy = choosing(Sampling(temperature=0))
    best, _ = choose_slow(logits, greedy, 2)

    tokens, _ = choose_slow(logits, greedy, 2, best)

    assert not set(tokens.tolist()) & set(best.tolist())


def test_draft_is_the_sampler_s_guess() -> None:
    """With the same logits a draft is what the sampler guesses, offset and ids included."""
    request = Sampling(seed=3)
    logits = rows_of("random", 1, 512, 1)
    ids = torch.randperm(4000)[None, :512]

    token = draft_slow(logits, ids, choosing(request), 4)

    guess = Sampler(request, vocab=4000).guess(logits.clone(), None, ids[0], 11)
    assert guess.tolist() == token.tolist()


class TestKernel:
    """The Triton kernels, run by Triton's interpreter."""

    @pytest.fixture(autouse=True)
    def interpreter(self) -> None:
        pytest.importorskip("triton")
        import tests.fakes.triton_sort_on_cpu  # noqa: F401

    @pytest.mark.parametrize(
        ("kind", "columns", "per"),
        [
            ("random", 48, 1),
            *(pytest.param(kind, 1000, 2, marks=pytest.mark.slow) for kind in KINDS),
            *(pytest.param(kind, VOCAB, 2, marks=pytest.mark.slow) for kind in KINDS),
        ],
    )
    def test_kernel_chooses_what_the_twin_chooses(self, kind: str, columns: int, per: int) -> None:
        """Greedy and sampled rows of one batch get the twin's tokens; else they overflow."""
        from gemmarunner.kernels.choose_triton import launch_choose

        batch = [
            Sampling(seed=1),
            Sampling(temperature=0, top_k=0, seed=2),
            Sampling(temperature=0.6, top_k=128, top_p=1.0, min_p=0.01, seed=3),
            Sampling(temperature=1e-3, top_p=0.5, top_k=5, seed=2**63),
            Sampling(top_k=1, seed=4),
        ]
        logits = rows_of(kind, 5 * per, columns, 5)

        tokens, overflow = launch_choose(logits, choosing(*batch), per, None)

        expected, _ = choose_slow(logits, choosing(*batch), per)
        whole = ~overflow.repeat_interleave(per)
        assert expected[whole].tolist() == tokens[whole].tolist()
        assert kind in ("flat", "rising", "coarse") or whole.all()
        assert not overflow[[1, 4]].any(), "a greedy row needs no list"

    def test_row_overflows_when_its_tie_is_larger_than_the_list(self) -> None:
        """More candidates than the list holds are told, for that sequence alone."""
        from gemmarunner.kernels.choose_triton import launch_choose

        logits = rows_of("random", 3, VOCAB, 6)
        logits[1, : MAX_LIST + 1] = 50.0
        batch = choosing(Sampling(seed=1), Sampling(seed=2), Sampling(temperature=0))

        _, overflow = launch_choose(logits, batch, 1, None)

        assert overflow.tolist() == [False, True, False]

    def test_suppressed_tokens_are_never_chosen(self) -> None:
        """Neither launch sees a suppressed id."""
        from gemmarunner.kernels.choose_triton import launch_choose

        logits = rows_of("random", 2, VOCAB, 0)
        suppressed = logits.argmax(-1)
        batch = choosing(Sampling(temperature=0), Sampling(seed=3))

        tokens, _ = launch_choose(logits, batch, 1, suppressed)

        assert choose_slow(logits, batch, 1, suppressed)[0].tolist() == tokens.tolist()

    @pytest.mark.parametrize(("columns", "named"), [(512, True), (VOCAB, False)])
    def test_draft_kernel_guesses_what_the_twin_guesses(self, columns: int, named: bool) -> None:
        """Drafts from named candidates and from a whole vocabulary are the twin's."""
        from gemmarunner.kernels.choose_triton import launch_draft

        logits = rows_of("random", 3, columns, 1)
        ids = torch.stack([torch.randperm(9000)[:columns] for _ in range(3)]) if named else None
        batch = choosing(Sampling(seed=1), Sampling(temperature=0), Sampling(top_k=100))

        tokens = launch_draft(logits, ids, batch, 4, None)

        assert draft_slow(logits, ids, batch, 4).tolist() == tokens.tolist()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_choosing_kernels_compile_for_hopper() -> None:
    """Each kernel around the matrix products fits an SM at the real shapes, and none spills."""
    pytest.importorskip("triton")
    program = Path(__file__).with_name("compile_choosing.py")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}

    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout + done.stderr
