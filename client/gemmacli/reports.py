"""A benchmark's report, as lines and as JSON."""

from dataclasses import asdict

from gemmacli.benchmark import Report
from gemmacli.json_object import Json
from gemmacli.tables import aligned
from gemmacli.wording import percent


def lines(report: Report) -> list[str]:
    """What `gemma bench` prints."""
    drafting, ratios = report.drafting, report.ratios
    share = drafting.accepted / drafting.drafted if drafting.drafted else 0.0
    positions = " ".join(percent(value) for value in drafting.per_position) or "-"
    spread = f"{min(ratios, default=0):.2f} to {max(ratios, default=0):.2f}, {len(ratios)} repeats"
    rows = [
        ("draft off", f"{report.plain.tokens_per_second:.1f} tok/s"),
        (f"draft {report.draft}", f"{report.drafted.tokens_per_second:.1f} tok/s"),
        ("ratio", f"{report.ratio:.2f} ({spread})"),
        ("accepted", f"{percent(share)} of {drafting.drafted} drafts"),
        ("by position", positions),
        ("tokens per round", f"{drafting.tokens_per_round:.2f}"),
        ("identical", "yes" if report.identical else f"NO, {len(report.differing)} prompts differ"),
    ]
    what = f"{report.prompts} prompts, greedy, at most {report.num_predict} tokens"
    return [
        f"{report.model}: {what}",
        *aligned(rows),
        *(f"differs: {text}" for text in report.differing),
    ]


def as_json(report: Report) -> Json:
    """The report with the rates that follow from it, numbers unrounded."""
    modes = {"off": report.plain, "auto" if report.draft == "auto" else "drafted": report.drafted}
    sides = {
        name: {**asdict(side), "tokens_per_second": side.tokens_per_second}
        for name, side in modes.items()
    }
    return {
        "model": report.model,
        "draft": report.draft,
        "prompts": report.prompts,
        "repeats": report.repeats,
        "num_predict": report.num_predict,
        **sides,
        "ratio": report.ratio,
        "ratio_min": min(report.ratios, default=0.0),
        "ratio_max": max(report.ratios, default=0.0),
        "ratios": list(report.ratios),
        **asdict(report.drafting),
        "identical": report.identical,
        "differing": list(report.differing),
    }
