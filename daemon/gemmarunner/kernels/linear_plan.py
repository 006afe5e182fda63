"""How a weight matrix is cut among programs: by its shape, never by the rows it multiplies.

A program takes `block_n` rows of the weight and one of `splits` equal parts of its columns, in
steps of `block_k`. Splits and `block_k` fix the order of an output's sum where it is split, so they
hang on the weight's shape alone; `stages`, and of whole sums `block_k`, may change with the row
tile, which no sum sees: its order is by sixteens of columns in any case.

The rules were measured on an H200 (132 multiprocessors): one even wave of programs is what counts,
either one deep program a multiprocessor or three light ones, with 120 to 180 KB of loads in flight.
"""

from typing import NamedTuple

ROW_TILES = (16, 32, 64, 128)
_SHARED_BYTES = 220 * 1024  # of 227 KB; the rest is for layout changes and barriers
_MULTIPROCESSORS = 132
_LIGHT = 3  # light programs that a multiprocessor holds
_MAX_SPLITS = 8
_FULL = 0.9  # of a wave


class Plan(NamedTuple):
    """The cut of one weight; `block_n` counts weight rows, gate and up rows both."""

    block_n: int
    block_k: int
    splits: int
    stages: int
    warps: int


class Held(NamedTuple):
    """Weight tiles that a program holds in registers before its rows are there, by kind."""

    matmul: int = 1
    down: int = 1  # a matmul of more than twice as many columns as rows
    gate_up: int = 1
    head: int = 1


class Tuning(NamedTuple):
    """What can be tried out; only `cuts` with other splits change a sum's order."""

    held: Held = Held()
    cuts: tuple[tuple[tuple[int, int], Plan], ...] = ()  # (weight shape, plan for 16 rows)


tuning = Tuning()


def row_tile(rows: int) -> int:
    """The least row tile that holds `rows`."""
    return next(tile for tile in ROW_TILES if rows <= tile)


def plan(n: int, k: int, tile: int, *, whole: bool) -> Plan:
    """The cut of a weight [n, k] for up to `tile` rows; `whole`: sums must not be split."""
    tried = dict(tuning.cuts).get((n, k))
    if tried is not None:
        return _fitted(tried, tile)
    return _fitted(_whole(n, k, tile) if whole else _split(n, k), tile)


def held_tiles(k: int, tile: int, cut: Plan, most: int) -> tuple[int, bool]:
    """Tiles that a program may hold, up to `most`, and whether any program has more than those."""
    steps = -(-k // cut.block_k)
    if k == cut.block_k * cut.splits:
        return 1, False
    fit = k % cut.block_k == 0 and tile < 128  # of which the sums take all registers
    held = min(most, steps // cut.splits) if fit else 0
    return held, steps > held * cut.splits


def _whole(n: int, k: int, tile: int) -> Plan:
    """Programs of many waves are large; those of one wave light, or with many rows deep."""
    if n >= 128 * 4 * _MULTIPROCESSORS:
        return Plan(128, 64, 1, 8, 8)
    if k % 128 == 0 and tile < 64:
        return Plan(64, 128, 1, 3, 4)
    return Plan(64, 64, 1, 8, 4)


def _split(n: int, k: int) -> Plan:
    """One wave of deep programs if they fill it or there is but one step, else of light ones."""
    tiles = -(-n // 64)
    deep = next((b for b in (256, 128) if k % b == 0), 64)
    splits = min(_MAX_SPLITS, _MULTIPROCESSORS // tiles, -(-k // deep))
    if k <= deep or tiles * splits >= _FULL * _MULTIPROCESSORS:
        return Plan(64, deep, max(1, splits), min(8, 768 // deep), 4)
    light = 128 if k % 128 == 0 else 64
    splits = min(_MAX_SPLITS, _LIGHT * _MULTIPROCESSORS // tiles, -(-k // light))
    return Plan(64, light, max(1, splits), 384 // light, 4)


def _fitted(found: Plan, tile: int) -> Plan:
    """With no more stages than shared memory holds."""
    stage = (found.block_n + tile) * found.block_k * 2
    most = max(2, min(found.stages, _SHARED_BYTES // stage))
    return found._replace(stages=most)
