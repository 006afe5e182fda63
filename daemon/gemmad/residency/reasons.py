"""Keeps why drafters were set aside, so that a daemon that is started again knows.

<state>/set_aside.json   {"version": "0.1.0", "reasons": {"<manifest id>": "...", ...}}

Another version of the program may have mended what did the harm: it begins without reasons.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from gemmad.core import Digest
from gemmad.formats.hints import HintFile

MAX_PAIRS = 64


class _Kept(msgspec.Struct, frozen=True):
    version: str
    reasons: dict[Digest, str]


class Reasons:
    """What is on disk of them."""

    def __init__(self, path: Path, version: str) -> None:
        self._file = HintFile(path, _Kept, "why drafters were set aside")
        self._version = version

    def known(self) -> dict[Digest, str]:
        """Those that an earlier daemon of this version wrote."""
        kept = self._file.read()
        return dict(kept.reasons) if kept and kept.version == self._version else {}

    def save(self, reasons: Mapping[Digest, str]) -> None:
        """The latest of them are on disk, as far as the disk lets it."""
        latest = list(reasons.items())[-MAX_PAIRS:]
        self._file.write(_Kept(self._version, dict(latest)))
