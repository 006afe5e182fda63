"""A generation request as the daemon means it, whichever dialect it came in."""

from dataclasses import dataclass, field

from gemmad.core import ModelName
from gemmad.wire import DraftMode, Message


@dataclass(frozen=True, slots=True)
class Options:
    """What the request sets of sampling and context; what it leaves out is the model's or ours."""

    sampling: dict[str, object] = field(default_factory=dict)  # fields of wire.Sampling
    num_ctx: int | None = None
    draft: DraftMode | None = None
    quantize: str | None = None  # none | int8 | int4
    draft_quantize: str | None = None  # the same for the drafter
    deterministic: bool | None = None

    @property
    def names_weights(self) -> bool:
        """Whether the request says how weights are to be loaded."""
        said = (self.quantize, self.draft_quantize, self.deterministic)
        return any(value is not None for value in said)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer asked for. Without messages and prompt it only loads (or unloads) the model."""

    model: ModelName
    called: str  # the model's name as the client wrote it, and reads it back
    messages: tuple[Message, ...] = ()
    prompt: str | None = None  # raw text, when there are no messages
    context: tuple[int, ...] = ()
    tools: tuple[dict[str, object], ...] = ()
    think: bool = False
    options: Options = Options()
    keep_alive_s: float | None = None  # None: not said; infinity: for ever
    stream: bool = True

    @property
    def load_only(self) -> bool:
        """Nothing to answer."""
        return not self.messages and self.prompt is None

    @property
    def unload_only(self) -> bool:
        """Nothing to answer, and the model need not stay."""
        return self.load_only and self.keep_alive_s == 0
