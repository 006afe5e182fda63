"""What goes into the engine and what comes out of it."""

from dataclasses import dataclass
from typing import Literal

from gemmarunner.engine.request import DraftMode, DraftStats, Sampling

Reason = Literal["stop", "length", "cancel"]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A prompt to continue."""

    id: int
    tokens: list[int]
    sampling: Sampling
    draft: DraftMode = "auto"
    max_tokens: int | None = None  # None: sampling.num_predict says it


@dataclass(frozen=True, slots=True)
class Tokens:
    """New text of a request; never an end-of-sequence token."""

    id: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that ran; times are wall time, waiting for a slot left out."""

    id: int
    reason: Reason
    prompt_tokens: int
    prompt_ns: int  # until the first token was chosen
    eval_tokens: int  # all that Tokens events carried
    eval_ns: int  # from there to the end
    draft: DraftStats


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request the model could not run; other requests go on."""

    id: int
    error: Exception


EngineEvent = Tokens | Finished | Failed
