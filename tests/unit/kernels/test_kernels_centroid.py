"""The head over clusters, kernel against twin and twin against the drafter."""

import pytest
import torch

from gemmarunner.kernels.centroid import centroid_logits_slow
from gemmarunner.models.config import CentroidConfig
from gemmarunner.models.drafter import CentroidHead


def head(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Rows, centroids, clusters and their tokens: 64 clusters of 24."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 48, generator=generator).to(dtype)
    centroids = torch.randn(64, 48, generator=generator).to(dtype)
    table = torch.randn(64 * 24, 48, generator=generator).to(dtype)
    ids = torch.randperm(64 * 24, generator=generator).view(64, 24)
    return x, centroids, table[ids], ids, table


def test_candidates_are_the_drafter_s() -> None:
    """The twin scores the tokens that the drafter's head scores, alike."""
    x, centroids, clusters, ids, table = head(torch.float32)
    tensors = {
        "masked_embedding.token_ordering": ids.flatten(),
        "masked_embedding.centroids.weight": centroids,
    }
    model = CentroidHead(CentroidConfig(64, 5), table, lambda name, *_, **__: tensors[name])

    logits, tokens = centroid_logits_slow(x[:1], centroids, clusters, ids, 5)

    expected = model(x[:1])
    assert expected.ids is not None
    ours, theirs = tokens[0].argsort(), expected.ids.argsort()
    assert torch.equal(expected.ids[theirs], tokens[0, ours])
    torch.testing.assert_close(expected.logits[theirs], logits[0, ours])


@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16]
)
def test_kernel_scores_what_the_twin_scores(dtype: torch.dtype) -> None:
    """Logits and tokens come in the twin's order, the best cluster first."""
    pytest.importorskip("triton")
    import tests.fakes.triton_sort_on_cpu  # noqa: F401
    from gemmarunner.kernels.centroid_triton import launch_centroid_logits

    x, centroids, clusters, ids, _ = head(dtype)
    logits, tokens = launch_centroid_logits(x, centroids, clusters, ids, 5)

    expected, expected_tokens = centroid_logits_slow(x, centroids, clusters, ids, 5)
    assert torch.equal(expected_tokens, tokens)
    torch.testing.assert_close(expected, logits)
