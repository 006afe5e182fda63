"""What a request asks of the engine, and what drafting did for it: plain data, no wire format."""

from dataclasses import dataclass
from typing import Literal

DraftMode = Literal["auto", "off"] | int


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when to stop; temperature 0 is greedy.

    Fields and defaults are those of the frame that carries it; `stop` is nobody's business here.
    """

    temperature: float = 1.0
    top_k: int = 64  # 0 = off
    top_p: float = 0.95  # 1 = off
    min_p: float = 0.0  # 0 = off
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64  # -1 = whole context, 0 = off
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    num_predict: int = -1  # -1 = until the model stops or the context is full


@dataclass(frozen=True, kw_only=True)
class DraftStats:
    """What drafting did for one request."""

    depth: int  # depth of the last round; 0 = parked or off
    rounds: int
    drafted: int
    accepted: int
    per_position: tuple[float, ...]  # share of rounds reaching position i that accepted there
    tokens_per_round: float
    positions: tuple[tuple[int, int], ...] = ()  # of draft i: rounds that reached it, accepted it
