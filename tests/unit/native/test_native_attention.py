"""The library's attention is softmax's, and each head's result is its own."""

import ctypes

import pytest
import torch
from torch import Tensor

from gemmarunner.native.library import library, status

pytestmark = pytest.mark.skipif(library() is None, reason=status())


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    found = library()
    assert found is not None
    (heads, width), count = queries.shape, len(keys)
    scores, out = torch.empty(2 * count), torch.empty(heads, width)
    places = [ctypes.c_void_p(t.data_ptr()) for t in (queries, keys, values, scores, out)]
    found.gm_attend(places[0], heads, *places[1:3], count, width, *places[3:])
    return out


@pytest.mark.parametrize("width", [8, 24, 64, 256, 512])
@pytest.mark.parametrize("count", [1, 5, 64, 601])
@pytest.mark.parametrize("size", [0.1, 30.0])
def test_attention_is_softmax(width, count, size) -> None:
    """Also of queries so large that one key takes all."""
    generator = torch.Generator().manual_seed(count)
    queries, keys, values = (
        torch.randn(rows, width, generator=generator) for rows in (3, count, count)
    )
    queries *= size

    found = attend(queries, keys, values)

    expected = torch.softmax(queries.double() @ keys.double().T, -1) @ values.double()
    torch.testing.assert_close(found.double(), expected, atol=2e-4, rtol=1e-3)


def test_a_head_hangs_on_no_other() -> None:
    """Bit for bit, in pairs and alone."""
    generator = torch.Generator().manual_seed(3)
    queries, keys, values = (torch.randn(n, 64, generator=generator) for n in (4, 77, 77))

    together = attend(queries, keys, values)

    alone = torch.cat([attend(query[None].contiguous(), keys, values) for query in queries])
    assert torch.equal(together, alone)
