"""All that residency's decisions can do to the world; each effect's end is told by an event."""

from collections.abc import Mapping
from typing import Protocol

from gemmad.api.errors import GemmaError
from gemmad.core import Digest, ModelName
from gemmad.residency.resident import Resident, Waiter
from gemmad.residency.seen import EventKind


class Effects(Protocol):
    """What the loop carries out."""

    def load(self, resident: Resident) -> None:
        """Start a runner as its fit says; `loaded` or `load_failed` follows."""
        ...

    def stop(self, resident: Resident) -> None:
        """End the runner; `gone` follows."""
        ...

    def reclaim(self, resident: Resident, nbytes: int) -> None:
        """Take back prefix snapshots; `settled` follows."""
        ...

    def detach(self, resident: Resident) -> None:
        """Take the drafter out of memory; `settled` follows."""
        ...

    def attach(self, resident: Resident) -> None:
        """Bring the drafter back; `settled` or `attach_failed` follows."""
        ...

    def check(self, resident: Resident) -> None:
        """End the runner if it does not answer; then `gone` follows."""
        ...

    def keep_set_aside(self, reasons: Mapping[Digest, str]) -> None:
        """The next daemon knows these drafters as set aside, and no others."""
        ...

    def drop_spare(self) -> None:
        """End the spare runner; a later look at the machine shows it."""
        ...

    def grant(self, waiter: Waiter, resident: Resident) -> None:
        """The waiter may use the resident until `left`."""
        ...

    def refuse(self, waiter: Waiter, error: GemmaError) -> None:
        """The waiter gets an error."""
        ...

    def tell(
        self,
        kind: EventKind,
        name: ModelName | None = None,
        reason: str = "",
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        """Whoever listens knows."""
        ...
