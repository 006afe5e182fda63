"""Which rounds and prompts stand for all others when kernels are built ahead of requests."""

import pytest
import torch

from gemmarunner.cuda.graphs import RoundGraphs
from gemmarunner.cuda.slots import buckets
from gemmarunner.cuda.warming import _FEW, load_libraries, one_of_each
from gemmarunner.kernels.linear_plan import row_tile


@pytest.mark.parametrize("slots", [1, 3, 8, 32])
@pytest.mark.parametrize("group", [1, 2, 4, 8, 16])
def test_cuda_built_rounds_stand_for_all(slots: int, group: int) -> None:
    """Row tiles, attention tiles and what drafting calls: none is met in a request first."""
    graphs = RoundGraphs(None, None, buckets(slots), 8, torch.device("cpu"))  # type: ignore[arg-type]

    def variants(shapes: list) -> set:
        return {
            (row_tile(s.batch * (s.depth + 1)), (s.depth + 1) * group <= 16, min(s.depth, 2))
            for s in shapes
        }

    chosen = one_of_each(graphs.shapes)
    assert variants(chosen) == variants(graphs.shapes)
    assert len(chosen) <= len(graphs.shapes)


def test_cuda_built_prompts_have_every_row_tile() -> None:
    """Each tile once, and one beyond them all."""
    tiles = [row_tile(count) for count in _FEW[:-1]]

    assert set(tiles) == {row_tile(count) for count in range(1, 129)}
    assert len(tiles) == len(set(tiles))
    assert _FEW[-1] > 128


@pytest.mark.parametrize(("longest", "read"), [(2048, [1, 161, 2048]), (64, [1, 64]), (1, [1])])
def test_cuda_libraries_see_no_longer_prompt_than_fits(longest: int, read: list[int]) -> None:
    """Prompts are cut to the context, each length once."""
    counts: list[int] = []
    load_libraries(counts.append, longest)

    assert counts == read
