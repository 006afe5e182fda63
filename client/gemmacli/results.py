"""What commands return; `render` prints each, as text or as JSON.

Tuples, since every command imports them all, and making a dataclass takes ten times as long.
"""

from typing import TYPE_CHECKING, NamedTuple

from gemmacli.json_object import Json

if TYPE_CHECKING:
    from gemmacli.benchmark import Report
    from gemmacli.records import Answer


class Versions(NamedTuple):
    """The client's version, and the daemon's; None when none runs."""

    client: str
    daemon: str | None


class Stored(NamedTuple):
    """The daemon's list of models."""

    reply: Json


class Running(NamedTuple):
    """The daemon's list of loaded models; None when no daemon runs."""

    reply: Json | None


class Examined(NamedTuple):
    """What the daemon says of this computer."""

    reply: Json


class Card(NamedTuple):
    """What the daemon says of one model; `part` narrows it to one field, verbatim."""

    model: str
    reply: Json
    part: str | None = None
    verbose: bool = False


class Answered(NamedTuple):
    """An answer already streamed to the screen, unless JSON was asked for."""

    model: str
    answer: "Answer"
    verbose: bool = False
    quiet: bool = False


class Measured(NamedTuple):
    """A benchmark's report."""

    report: "Report"


class Offered(NamedTuple):
    """What could be pulled."""

    reply: Json


class Pulling(NamedTuple):
    """The daemon's list of pulls; None when no daemon runs."""

    reply: Json | None


class Verified(NamedTuple):
    """What a verification found, as the daemon's records; the last says how much was bad."""

    records: tuple[Json, ...]


class Notice(NamedTuple):
    """Sentences that say what was done, and the same for programs."""

    text: str
    record: Json | None = None
