"""The shapes that the grammar, the packer and the evaluation exchange."""

from dataclasses import dataclass
from typing import Any, NamedTuple

MODEL_WEIGHT = 1.0
PROMPT_WEIGHT = 0.1
GENERAL_WEIGHT = 0.3


class Segment(NamedTuple):
    """A piece of rendered text and the loss weight of each of its tokens."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training document; its segments, joined, are the exact text from `<bos>` on."""

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """The whole rendered text."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation before rendering, in the message shapes that chat templates read."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    think: bool


@dataclass(frozen=True, slots=True)
class Item:
    """One question of the evaluation: a prompt to continue and what a right answer holds."""

    skill: str
    prompt: str
    expected: dict[str, Any]
    think: bool


class Verdict(NamedTuple):
    """What a judge found in an answer."""

    right: bool
    well_formed_thinking: bool
    stopped: bool
