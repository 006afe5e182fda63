"""How many bytes a packed matrix takes in a runner's memory, by its format and layout; arithmetic.

planes   codes in words across a step of a row, scales apart [steps, rows, blocks of a step]
tiled    16 rows by 128 columns a tile and step, scales beside; on a GPU, of Q4_0 and Q8_0
"""

from typing import NamedTuple


class _Planes(NamedTuple):
    """One format's planes, in bytes and weights."""

    step: int  # columns that a row is filled up to
    codes: float  # bytes a weight, upper bits too
    scales: float  # bytes of scales and minima in a step
    super_scales: int = 0  # bytes for each 256 columns


_FORMATS = {
    "Q4_0": _Planes(256, 0.5, 16),
    "Q8_0": _Planes(128, 1.0, 8),
    "Q4_K": _Planes(256, 0.5, 16, 4),
    "Q5_K": _Planes(256, 0.625, 16, 4),
    "Q6_K": _Planes(128, 0.75, 8, 2),
}
_TILED_BYTES = {"Q4_0": 0.5, "Q8_0": 1.0}
_TILE_ROWS, _TILE_STEP, _TILE_SCALES = 16, 128, 128
_SUPER = 256

KERNELS = frozenset(_FORMATS)  # formats that stay packed


def planes_bytes(kind: str, rows: int, columns: int) -> int:
    """Of a matrix in planes."""
    how = _FORMATS[kind]
    steps = -(-columns // how.step)
    row = steps * (how.step * how.codes + how.scales) + -(-columns // _SUPER) * how.super_scales
    return int(rows * row)


def tiled_bytes(kind: str, rows: int, columns: int) -> int:
    """Of a matrix laid out in tiles; where its format has none, in planes."""
    if kind not in _TILED_BYTES:
        return planes_bytes(kind, rows, columns)
    pieces = -(-rows // _TILE_ROWS) * -(-columns // _TILE_STEP)
    return int(pieces * (_TILE_ROWS * _TILE_STEP * _TILED_BYTES[kind] + _TILE_SCALES))
