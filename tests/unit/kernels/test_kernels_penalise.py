"""Penalties on the device's rows are those of the engine's sampler."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gemmarunner.engine.penalties import Penalties
from gemmarunner.engine.request import Sampling
from gemmarunner.kernels.penalise import RECENT, bends, penalise_slow
from tests.fakes.bent_rows import KINDS, VOCAB, scene


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5))
def test_rows_are_bent_as_the_sampler_bends_them(seed: int, depth: int) -> None:
    """Each row by the text and the drafts before it, bit for bit."""
    logits, drafts, texts, how = scene(seed, depth)
    before = logits.clone().view(len(KINDS), depth + 1, VOCAB)

    penalise_slow(logits, drafts, how)

    for index, request in enumerate(KINDS):
        own, penalties = before[index], Penalties.of(request)
        if penalties.active:
            history = torch.tensor(penalties.recent(texts[index]) + drafts[index].tolist())
            own = penalties.apply(own, history, VOCAB, None)
        assert torch.equal(logits.view(before.shape)[index], own), request


@pytest.mark.parametrize("depth", [0, 3])
def test_kernel_bends_what_the_twin_bends(depth: int) -> None:
    """Bit for bit, in texts longer and shorter than the ring."""
    pytest.importorskip("triton")
    import tests.fakes.triton_on_cpu  # noqa: F401
    from gemmarunner.kernels.penalise_triton import launch_penalise

    for seed in range(1 + (depth == 0)):
        expected, drafts, _, how = scene(seed, depth)
        logits = expected.clone()

        launch_penalise(logits, drafts, how)
        penalise_slow(expected, drafts, how)

        assert torch.equal(logits, expected)


def test_long_windows_are_not_for_the_kernel() -> None:
    """Nor is the whole text; a window of nothing is no penalty."""
    bent = [Sampling(repeat_penalty=1.1, repeat_last_n=n) for n in (-1, RECENT + 1, RECENT, 1, 0)]

    assert [bends(request) for request in bent] == [False, False, True, True, True]
    assert bends(Sampling(repeat_last_n=-1))
