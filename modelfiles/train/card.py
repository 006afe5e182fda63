"""Writes the model card of nano from the report of its training."""

from collections.abc import Mapping
from typing import Any

HEAD = """\
---
license: apache-2.0
language: en
tags: [gemma4_text, gemma4_assistant, speculative-decoding]
---
# nano

A small pair of the Gemma 4 architecture, a target and its MTP drafter, trained from nothing by this
project so that the program has real input without a network. **It is not a Google model**, holds no
Google weights, and knows little: how this program is used, what was said a few turns ago, how to
call declared tools, to answer in JSON, to think when told to, and a little chat. To anything else
it says that it is too small to know. Do not rely on it.

It was made by `python -m train` in `modelfiles/train/`. Its conversations come from a grammar of
the project's own; its general English from the packages that `modelfiles/train/SOURCES.md` names
with their licences. The weights are the project's, under Apache-2.0.
"""


def card(report: Mapping[str, Any]) -> str:
    """Return the card's text, with the tables of whatever the report holds."""
    parts = [HEAD, _sizes(report), _skills(report), _acceptance(report), _training(report)]
    return "\n".join(part for part in parts if part)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _sizes(report: Mapping[str, Any]) -> str:
    counted = report.get("parameters")
    if not counted:
        return ""
    rows = [[name, f"{count:,}"] for name, count in counted.items()]
    return "## Size\n" + _table(["part", "parameters"], rows)


def _skills(report: Mapping[str, Any]) -> str:
    skills = report.get("evaluation", {}).get("skills")
    if not skills:
        return ""
    columns = [(split, mode) for split in skills for mode in skills[split]]
    names = sorted({n for split, mode in columns for n in skills[split][mode]})
    tables = {"right": "Right answers", "stopped": "Stopped by themselves"}
    text = (
        "## Skills\nOf the questions asked. `values`: values, tools, keys and names never seen in "
        "training; `frames`: besides, at least one clause of the question's wording never seen; "
        "`seen`: fresh draws of the training grammar. Sampled: temperature 1.0, top-k 64, top-p "
        "0.95. Right means: the command in backticks, the value as a whole word, the call string "
        "identical, the parsed JSON equal.\n"
    )
    for key, title in tables.items():
        rows = [[n, *(_share(skills[s][m].get(n), key) for s, m in columns)] for n in names]
        text += f"\n### {title}\n" + _table(["skill", *(f"{s}, {m}" for s, m in columns)], rows)
    obedience = report["evaluation"]["obedience"]
    rows = [
        [told, *(_share(obedience[s][m].get(told), "thinking_as_told") for s, m in columns)]
        for told in ("think on", "think off")
    ]
    return (
        text
        + "\n### Thinking as told\n"
        + _table(["told to", *(f"{s}, {m}" for s, m in columns)], rows)
    )


def _share(counts: Mapping[str, int] | None, key: str) -> str:
    return f"{counts[key]}/{counts['asked']}" if counts else "–"


def _acceptance(report: Mapping[str, Any]) -> str:
    found = report.get("acceptance")
    if not found:
        return ""
    rows = []
    for split, modes in found.items():
        for mode, skills in modes.items():
            for name, value in skills.items():
                shares = " ".join(f"{100 * x:.0f}" for x in value["conditional"])
                rounds = " ".join(f"{x:.2f}" for x in value["tokens_per_round"].values())
                rows.append([split, mode, name, shares, rounds])
    head = [
        "split",
        "mode",
        "skill",
        "accepted if reached, % at 1..6",
        "tokens per round at depth 1..6",
    ]
    return (
        "## Drafting\nDrafts run freely from real round starts; a draft is accepted when it is the "
        "token the target said.\n\n" + _table(head, rows)
    )


def _training(report: Mapping[str, Any]) -> str:
    target, drafter = report.get("target", {}), report.get("drafter", {})
    if not target:
        return ""
    data, machine = report.get("data", {}), report.get("machine", {})
    losses = target.get("validation", {})
    lines = [
        f"- Seed {report.get('seed')}, torch {machine.get('torch')}, one {machine.get('device')}, "
        f"{sum(report.get('phases', {}).values()):.0f} s in all.",
        f"- Data: {data.get('conversations', 0):,} conversations of "
        f"{data.get('conversation_tokens', 0):,} tokens and "
        f"{data.get('general_tokens', 0):,} tokens of general English "
        f"({100 * data.get('general_share', 0):.0f}% of the mix).",
        f"- Target: {target.get('steps', 0):,} steps, {target.get('tokens', 0):,} tokens, "
        f"{target.get('seconds')} s; held-out loss of the model's turns "
        f"{losses.get('model_turns')}, of general English {losses.get('general')} a token.",
    ]
    if drafter:
        lines.append(f"- Drafter: {drafter.get('steps'):,} steps, {drafter.get('seconds')} s.")
    return "## Training\n" + "\n".join(lines) + "\n"
