"""What is run before the first request, so that none waits for a kernel's build."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gemmarunner.cuda.graphs import RoundGraphs, Shape
from gemmarunner.kernels.building import building

_FEW = (1, 17, 33, 65, 129)  # prompts of so many rows need kernels of their own
_LIBRARY = (1, 161)  # prompts that make libraries load what they use


class Kind(NamedTuple):
    """What the kernels of a round hang on; each number is the power of two that holds it."""

    rows: int
    per: int
    drafts: int  # 0, 1, or more


def kind_of(shape: Shape) -> Kind:
    """Rounds of one kind run the same kernels."""
    per = shape.depth + 1
    return Kind((shape.batch * per - 1).bit_length(), (per - 1).bit_length(), min(shape.depth, 2))


def one_of_each(shapes: Sequence[Shape]) -> list[Shape]:
    """The first shape of each kind."""
    found: dict[Kind, Shape] = {}
    for shape in shapes:
        found.setdefault(kind_of(shape), shape)
    return list(found.values())


def build_kernels(graphs: RoundGraphs, read: Callable[[int], None], longest: int) -> None:
    """Builds every kernel of rounds and prompts, many at once; what they compute is garbage.

    `read(count)` reads a prompt of `count` tokens; `longest` is the longest.
    """
    with building():
        for shape in one_of_each(graphs.shapes):
            graphs.run_plainly(shape)
        for count in _FEW:
            if count <= longest:
                read(count)


def load_libraries(read: Callable[[int], None], longest: int) -> None:
    """Lets the libraries of matrix products choose and load their kernels."""
    for count in sorted({min(count, longest) for count in (*_LIBRARY, longest)}):
        read(count)
