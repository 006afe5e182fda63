"""The lines that say how fast an answer came; pure."""

from gemmacli.records import Draft, Figures
from gemmacli.wording import duration, percent

NOTABLE_LOAD_S = 0.1


def last_line(figures: Figures, first_token_s: float | None) -> str:
    """All that matters in one line."""
    parts = [f"{figures.eval_tokens} token{'' if figures.eval_tokens == 1 else 's'}"]
    if figures.eval_rate is not None:
        parts.append(f"{_rate(figures.eval_rate)} tok/s")
    if first_token_s is not None:
        parts.append(f"first token {duration(first_token_s)}{_loading(figures)}")
    parts.append(_drafter(figures.draft))
    return " · ".join(parts)


def _loading(figures: Figures) -> str:
    return f" (loading {duration(figures.load_s)})" if figures.load_s >= NOTABLE_LOAD_S else ""


def _drafter(draft: Draft | None) -> str:
    if draft is None or draft.acceptance is None:
        return "drafter: not used"
    return (
        f"drafter: depth {draft.depth}, {percent(draft.acceptance)} accepted, "
        f"{draft.tokens_per_round:.1f} tokens per round"
    )


def table(figures: Figures, first_token_s: float | None) -> list[tuple[str, str]]:
    """Every figure, as name and value."""
    rows = [
        ("total duration", duration(figures.total_s)),
        ("load duration", duration(figures.load_s)),
        ("first token", "-" if first_token_s is None else duration(first_token_s)),
        ("prompt eval count", f"{figures.prompt_tokens} token(s)"),
        ("prompt eval duration", duration(figures.prompt_s)),
        ("prompt eval rate", _per_second(figures.prompt_rate)),
        ("eval count", f"{figures.eval_tokens} token(s)"),
        ("eval duration", duration(figures.eval_s)),
        ("eval rate", _per_second(figures.eval_rate)),
        ("stopped by", figures.done_reason or "-"),
    ]
    return rows + _draft_rows(figures.draft)


def _draft_rows(draft: Draft | None) -> list[tuple[str, str]]:
    if draft is None or draft.acceptance is None:
        return [("drafter", "not used")]
    accepted = f"{draft.accepted} of {draft.drafted} ({percent(draft.acceptance)})"
    return [
        ("draft depth", str(draft.depth)),
        ("draft rounds", str(draft.rounds)),
        ("draft accepted", accepted),
        ("draft by position", " ".join(percent(share) for share in draft.per_position)),
        ("tokens per round", f"{draft.tokens_per_round:.2f}"),
    ]


def _per_second(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2f} tokens/s"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
