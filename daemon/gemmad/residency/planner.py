"""Decides which pair leaves when the room is full; pure."""

from collections.abc import Sequence
from typing import NamedTuple

from gemmad.core import ModelName


class Candidate(NamedTuple):
    """What the decision needs to know of one loaded pair."""

    name: ModelName
    users: int
    last_used: float  # seconds on the scheduler's clock
    leaving: bool  # already draining or stopping


def victims(loaded: Sequence[Candidate], incoming: int, max_loaded: int) -> list[ModelName]:
    """Who must leave so that `incoming` more pairs fit, in the order to be asked.

    1. What is leaving already counts as room that will come.
    2. Idle pairs go first, least recently used first.
    3. Then busy ones, least recently used first: they finish their work before they go.
    """
    staying = [pair for pair in loaded if not pair.leaving]  # 1
    excess = len(staying) + incoming - max_loaded
    ranked = sorted(staying, key=lambda pair: (pair.users > 0, pair.last_used))  # 2, 3
    return [pair.name for pair in ranked[: max(0, excess)]]
