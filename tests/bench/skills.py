"""Asks the built-in pair the questions of its card through our own engine; prints JSON lines.

One line a skill, split and mode: right, stopped, thinking as told, of how many; then one line of
drafting at a fixed depth: accepted per position if reached, and tokens per round.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest, Finished, Tokens
from gemmarunner.engine.request import DraftStats, Sampling
from gemmarunner.models.loader import load_drafter, load_target
from train.skills import SKILLS, items, judge

if TYPE_CHECKING:  # a machine that only asks with token ids has none
    from tokenizers import Tokenizer

NANO = Path(__file__).parents[2] / "modelfiles/gemmamodelfiles/nano"
MODES = {
    "greedy": Sampling(temperature=0.0, num_predict=240),
    "sampled": Sampling(temperature=1.0, top_k=64, top_p=0.95, seed=1, num_predict=240),
}


def files(part: str) -> dict[str, Path]:
    """Repository names and paths of the built-in target or drafter."""
    return {path.name: path for path in (NANO / part).iterdir()}


def new_engine(device: str) -> Engine:
    """The shipped pair in float32, ready to answer."""
    target = load_target(files("target"), device, torch.float32, None)
    drafter = load_drafter(files("drafter"), device, torch.float32, None)
    drafter.bind(target)
    backend = EagerBackend(target, drafter, num_ctx=2048, max_depth=8)
    return Engine(backend, eos_ids=frozenset({1, 106, 50}))


def answered(
    engine: Engine, prompt: Sequence[int], sampling: Sampling, depth: int
) -> tuple[list[int], Finished]:
    """The tokens of one answer and how it ended."""
    engine.add(EngineRequest(id=1, tokens=list(prompt), sampling=sampling, draft=depth))
    tokens: list[int] = []
    while True:
        for event in engine.step():
            if isinstance(event, Tokens):
                tokens += event.tokens
            elif isinstance(event, Finished):
                return tokens, event


def text_of(tokenizer: "Tokenizer", tokens: Sequence[int], end: Finished) -> str:
    """The answer as the judge reads it: with control tokens and, if it stopped, a stop token.

    NOTE: the engine does not say which stop token came, so the one that belongs is taken; a call
    that ended in `<turn|>` would pass here. The training's own evaluation reads the real one.
    """
    text = tokenizer.decode(list(tokens), skip_special_tokens=False)
    called = "<tool_call|>" in text
    stop = "<|tool_response>" if called else "<turn|>"
    return text + (stop if end.reason == "stop" else "")


def asked(
    engine: Engine, tokenizer: "Tokenizer", options: argparse.Namespace
) -> Iterator[tuple[dict[str, Any], list[DraftStats]]]:
    """One record of counts for each skill, split and mode, with the drafting of its answers."""
    for split in options.splits:
        for mode in options.modes:
            for skill in options.skills:
                counts: Counter[str] = Counter()
                drafting: list[DraftStats] = []
                for item in items(skill, split, options.count, options.seed):
                    ids = tokenizer.encode(item.prompt, add_special_tokens=False).ids
                    tokens, end = answered(engine, ids, MODES[mode], options.depth)
                    verdict = judge(item, text_of(tokenizer, tokens, end))
                    counts["asked"] += 1
                    counts["right"] += verdict.right
                    counts["stopped"] += verdict.stopped
                    counts["thinking_as_told"] += verdict.well_formed_thinking
                    drafting.append(end.draft)
                yield {"skill": skill, "split": split, "mode": mode, **counts}, drafting


def per_position(drafting: Sequence[DraftStats], depth: int) -> list[float]:
    """Conditional acceptance at 1..depth, each answer weighed by its rounds that reached it."""
    shares = []
    for position in range(depth):
        reached = accepted = 0.0
        for stats in drafting:
            weight: float = stats.rounds
            for share in stats.per_position[:position]:
                weight *= share
            if position < len(stats.per_position):
                reached += weight
                accepted += weight * stats.per_position[position]
        shares.append(round(accepted / max(reached, 1e-9), 3))
    return shares


def main() -> None:
    """Ask, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="questions a skill")
    parser.add_argument("--skills", nargs="*", default=SKILLS)
    parser.add_argument("--splits", nargs="*", default=("values", "frames"))
    parser.add_argument("--modes", nargs="*", default=tuple(MODES))
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(NANO / "target/tokenizer.json"))
    engine = new_engine(options.device)
    drafting: dict[str, list[DraftStats]] = {}
    for record, stats in asked(engine, tokenizer, options):
        print(json.dumps(record), flush=True)
        drafting.setdefault(record["mode"], []).extend(stats)
    for mode, stats in drafting.items():
        rounds = sum(s.rounds for s in stats)
        per_round = sum(s.rounds * s.tokens_per_round for s in stats) / max(1, rounds)
        shares = per_position(stats, options.depth)
        line = {"mode": mode, "depth": options.depth, "accepted_if_reached": shares}
        print(json.dumps(line | {"tokens_per_round": round(per_round, 2)}))


if __name__ == "__main__":
    main()
