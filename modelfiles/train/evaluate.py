"""Asks the target every skill's questions and tallies the judgements."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from train.acceptance import Answered, figures, right_drafts
from train.conversation import Item, Verdict
from train.generate import Generator, Prompt
from train.model import Drafter, Target

LONGEST_ANSWER = 240
FAILURES_KEPT = 20
SAMPLES_KEPT = 5
MODES = ("greedy", "sampled")


class Question(NamedTuple):
    """One item of the evaluation in one mode of answering."""

    split: str
    mode: str
    item: Item
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and its judgement."""

    question: Question
    tokens: tuple[int, ...]
    text: str
    verdict: Verdict


@dataclass(slots=True)
class Tally:
    """How a group of replies did."""

    asked: int = 0
    right: int = 0
    thinking_as_told: int = 0
    stopped: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reply: Reply) -> None:
        """Count one reply, keeping the first failures in full."""
        verdict, item = reply.verdict, reply.question.item
        self.asked += 1
        self.right += verdict.right
        self.thinking_as_told += verdict.well_formed_thinking
        self.stopped += verdict.stopped
        if not all(verdict) and len(self.failures) < FAILURES_KEPT:
            entry = {"prompt": item.prompt, "answer": reply.text, "expected": item.expected}
            self.failures.append(entry | {"think": item.think} | verdict._asdict())

    def counts(self) -> dict[str, int]:
        """Return the numbers alone."""
        return {
            "asked": self.asked,
            "right": self.right,
            "thinking_as_told": self.thinking_as_told,
            "stopped": self.stopped,
        }


def questions(
    tokenizer: Tokenizer, items: dict[tuple[str, str], list[Item]], modes: Sequence[str] = MODES
) -> list[Question]:
    """Return every item of every (skill, split) in every mode."""
    asked = []
    for (_, split), some in items.items():
        encodings = tokenizer.encode_batch([i.prompt for i in some], add_special_tokens=False)
        for item, encoding in zip(some, encodings, strict=True):
            asked += [Question(split, mode, item, tuple(encoding.ids)) for mode in modes]
    return asked


def ask(
    generator: Generator,
    tokenizer: Tokenizer,
    asked: Sequence[Question],
    judge: Callable[[Item, str], Verdict],
    enough: Callable[[], bool],
) -> list[Reply]:
    """Return the judged replies, those that the time allowed."""
    prompts = [Prompt(q.prompt, sampled=q.mode == "sampled") for q in asked]
    answers = generator.continue_all(prompts, LONGEST_ANSWER, enough)
    reached = [(q, tuple(a)) for q, a in zip(asked, answers, strict=True) if a]
    texts = tokenizer.decode_batch([list(a) for _, a in reached], skip_special_tokens=False)
    return [
        Reply(question, answer, text, judge(question.item, text))
        for (question, answer), text in zip(reached, texts, strict=True)
    ]


def skill_report(replies: Sequence[Reply]) -> dict[str, Any]:
    """Return the tallies: {split: {mode: {skill: counts}}}, thinking obedience and failures."""
    tallies: dict[tuple[str, str, str], Tally] = {}
    obedience: dict[tuple[str, str, str], Tally] = {}
    for reply in replies:
        split, mode, item, _ = reply.question
        tallies.setdefault((split, mode, item.skill), Tally()).add(reply)
        told = "think on" if item.think else "think off"
        obedience.setdefault((split, mode, told), Tally()).add(reply)
    return {
        "skills": _nested({key: tally.counts() for key, tally in tallies.items()}),
        "obedience": _nested({key: tally.counts() for key, tally in obedience.items()}),
        "failures": _nested({key: tally.failures for key, tally in tallies.items()}),
    }


def _nested(flat: dict[tuple[str, str, str], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (split, mode, name), value in flat.items():
        nested.setdefault(split, {}).setdefault(mode, {})[name] = value
    return nested


def acceptance_report(target: Target, drafter: Drafter, replies: Sequence[Reply]) -> dict[str, Any]:
    """Return acceptance for each split and mode, overall and by skill."""
    texts = [Answered(r.question.prompt, r.tokens) for r in replies]
    runs = right_drafts(target, drafter, texts)
    groups: dict[tuple[str, str, str], list[list[int]]] = {}
    for reply, row in zip(replies, runs, strict=True):
        split, mode, item, _ = reply.question
        for name in ("all", item.skill):
            groups.setdefault((split, mode, name), []).append(row)
    return _nested({key: figures(rows) for key, rows in groups.items()})


def transcripts(replies: Sequence[Reply]) -> str:
    """Return the first conversations of each skill, split and mode, verbatim."""
    kept: dict[tuple[str, str, str], list[str]] = {}
    for reply in replies:
        question = reply.question
        key = (question.item.skill, question.split, question.mode)
        some = kept.setdefault(key, [])
        if len(some) < SAMPLES_KEPT:
            some.append(_transcript(reply))
    return "\n".join(text for key in sorted(kept) for text in kept[key])


def _transcript(reply: Reply) -> str:
    question, verdict = reply.question, reply.verdict
    head = f"=== {question.item.skill} / {question.split} / {question.mode}: {verdict}"
    expected = f"expected: {question.item.expected}"
    return f"{head}\n{expected}\n{question.item.prompt}[[{reply.text}]]\n"
