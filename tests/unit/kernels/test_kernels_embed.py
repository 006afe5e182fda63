"""Rows of the token tables, kernel against twin and twin against the model."""

import pytest
import torch

from gemmarunner.kernels.embed import embed_slow, ple_rows_slow
from gemmarunner.models.embedding import PerLayerEmbedding


def test_per_layer_rows_are_the_model_s() -> None:
    """With the model's factors folded in, the twin gives the model's vectors."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "embed_tokens_per_layer.weight": torch.randn(30, 3 * 8, generator=generator),
        "per_layer_model_projection.weight": torch.randn(3 * 8, 16, generator=generator),
        "per_layer_projection_norm.weight": torch.randn(8, generator=generator),
    }
    model = PerLayerEmbedding(30, 3, 8, 16, 1e-6, lambda name, *_, **__: tensors[name])
    ids, x = torch.tensor([3, 29]), torch.randn(2, 16, generator=generator)

    table, projection, weight = tensors.values()
    context = (x @ projection.t())[None]
    rows = ple_rows_slow(
        ids, table, context, weight * 0.5**0.5, 16e-6, model.tokens.scale, torch.float32
    )

    torch.testing.assert_close(model(ids, x).transpose(0, 1), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_give_the_twins_rows(dtype: torch.dtype) -> None:
    """Both kernels agree with their twins, also where widths are no powers of two."""
    pytest.importorskip("triton")
    import tests.fakes.triton_on_cpu  # noqa: F401
    from gemmarunner.kernels.embed_triton import launch_embed, launch_ple_rows

    ids = torch.tensor([3, 0, 29])
    table = torch.randn(30, 5 * 24).to(dtype)
    context = torch.randn(2, 3, 5 * 24)
    args = (ids, table, context, torch.randn(24), 1e-6, 0.7, dtype)

    torch.testing.assert_close(embed_slow(ids, table, 39.25), launch_embed(ids, table, 39.25))
    torch.testing.assert_close(ple_rows_slow(*args), launch_ple_rows(*args))
