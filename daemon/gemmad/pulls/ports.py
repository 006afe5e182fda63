"""What pulls need of other rooms: plans, inspected facts, and which parameters are known."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from gemmad.core import Details, Digest
from gemmad.sources.plan import Plan
from gemmad.wire import PairFiles


class Inspected(Protocol):
    """What a look into the files of a pair has found; `inspection.Inspected` is one."""

    @property
    def details(self) -> Details:
        """What lists show."""
        ...

    @property
    def info(self) -> dict[str, object]:
        """Architecture facts."""
        ...

    @property
    def tokenizer(self) -> Digest:
        """Equal for equal vocabularies."""
        ...

    @property
    def template(self) -> Digest | None:
        """The chat template."""
        ...

    @property
    def drafter_parameter_size(self) -> str | None:
        """As people write it."""
        ...

    @property
    def drafter_mismatch(self) -> str | None:
        """Why the drafter does not belong to the target."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the files."""
        ...

    @property
    def parameters(self) -> Mapping[str, bool | int | float | str | list[str]]:
        """The sampling defaults in the files."""
        ...


Compose = Callable[[], Plan]  # blocks: called in a worker thread
Inspect = Callable[[PairFiles], Awaitable[Inspected]]
Accepts = Callable[[str, object], bool]  # whether a parameter of that name and value can be used
