"""What commands return; `render` prints each, as text or as JSON."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gemmacli.json_object import Json

if TYPE_CHECKING:
    from gemmacli.benchmark import Report
    from gemmacli.records import Answer


@dataclass(frozen=True, slots=True)
class Versions:
    """The client's version, and the daemon's; None when none runs."""

    client: str
    daemon: str | None


@dataclass(frozen=True, slots=True)
class Stored:
    """The daemon's list of models."""

    reply: Json


@dataclass(frozen=True, slots=True)
class Running:
    """The daemon's list of loaded models; None when no daemon runs."""

    reply: Json | None


@dataclass(frozen=True, slots=True)
class Card:
    """What the daemon says of one model; `part` narrows it to one field, verbatim."""

    model: str
    reply: Json
    part: str | None = None
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer already streamed to the screen, unless JSON was asked for."""

    model: str
    answer: "Answer"
    verbose: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """A benchmark's report."""

    report: "Report"


@dataclass(frozen=True, slots=True)
class Offered:
    """What could be pulled."""

    reply: Json


@dataclass(frozen=True, slots=True)
class Pulling:
    """The daemon's list of pulls; None when no daemon runs."""

    reply: Json | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found, as the daemon's records; the last says how much was bad."""

    records: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """Sentences that say what was done, and the same for programs."""

    text: str
    record: Json | None = None
