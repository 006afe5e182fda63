"""The daemon's answer records as typed values, and the figures that follow from them; pure."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from gemmacli.json_object import Json

_NANO = 1e-9


@dataclass(frozen=True, slots=True)
class Draft:
    """What drafting did for one answer; `per_position` are shares of accepted drafts."""

    depth: int
    rounds: int
    drafted: int
    accepted: int
    per_position: tuple[float, ...]
    tokens_per_round: float

    @property
    def acceptance(self) -> float | None:
        """Accepted share of all drafts; None when nothing was drafted."""
        return self.accepted / self.drafted if self.drafted else None


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts and seconds of one answer, as the daemon measured them."""

    done_reason: str
    total_s: float
    load_s: float
    prompt_tokens: int
    prompt_s: float
    eval_tokens: int
    eval_s: float
    draft: Draft | None

    @property
    def eval_rate(self) -> float | None:
        """Tokens per second of the answer."""
        return self.eval_tokens / self.eval_s if self.eval_s > 0 else None

    @property
    def prompt_rate(self) -> float | None:
        """Tokens per second of reading the prompt."""
        return self.prompt_tokens / self.prompt_s if self.prompt_s > 0 else None


class Piece(NamedTuple):
    """One record of a stream: some text, some thinking, figures in the last one."""

    text: str
    thinking: str
    final: Json | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `final` is None when it was broken off, the times are the client's."""

    text: str
    thinking: str
    final: Json | None
    first_token_s: float | None

    @property
    def figures(self) -> Figures | None:
        """The daemon's figures, unless the answer was broken off or only a model was loaded."""
        if self.final is None or self.final.get("done_reason") in ("load", "unload"):
            return None
        return figures(self.final)


def piece(record: Json) -> Piece:
    """A record of /api/generate or /api/chat."""
    message = record.get("message") or {}
    return Piece(
        text=record.get("response") or message.get("content") or "",
        thinking=record.get("thinking") or message.get("thinking") or "",
        final=record if record.get("done") else None,
    )


def figures(final: Json) -> Figures:
    """The figures of a final record; what the daemon left out counts as nothing."""
    return Figures(
        done_reason=str(final.get("done_reason") or ""),
        total_s=_seconds(final, "total_duration"),
        load_s=_seconds(final, "load_duration"),
        prompt_tokens=int(final.get("prompt_eval_count") or 0),
        prompt_s=_seconds(final, "prompt_eval_duration"),
        eval_tokens=int(final.get("eval_count") or 0),
        eval_s=_seconds(final, "eval_duration"),
        draft=_draft(final.get("draft")),
    )


def _draft(record: Any) -> Draft | None:
    if not isinstance(record, dict):
        return None
    return Draft(
        depth=int(record.get("depth") or 0),
        rounds=int(record.get("rounds") or 0),
        drafted=int(record.get("drafted") or 0),
        accepted=int(record.get("accepted") or 0),
        per_position=tuple(float(share) for share in record.get("per_position") or ()),
        tokens_per_round=float(record.get("tokens_per_round") or 0.0),
    )


def _seconds(final: Json, key: str) -> float:
    return float(final.get(key) or 0) * _NANO
