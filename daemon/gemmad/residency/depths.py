"""Keeps what the depth controller learned of each pair, so that a reload need not learn it again.

<state>/depths.json   {"<manifest id>": {...the controller's own words...}, ...}
"""

from pathlib import Path

from gemmad.core import Digest, Manifest
from gemmad.formats.hints import HintFile

MAX_PAIRS = 64


class DepthStates:
    """Depth states by pair; in memory at once, on disk when a pair is unloaded."""

    def __init__(self, path: Path) -> None:
        """What an earlier daemon saved is known; an unreadable file is forgotten (a hint only)."""
        self._file = HintFile(path, dict[Digest, dict[str, object]], "draft depths")
        self._states = self._file.read() or {}
        self._saved = True

    def known(self, manifest: Manifest) -> dict[str, object] | None:
        """The last state of this pair, if any."""
        return self._states.get(manifest.id)

    def learned(self, manifest: Manifest, state: dict[str, object]) -> None:
        """`state` is the latest of this pair."""
        self._states.pop(manifest.id, None)  # to the end: the oldest are forgotten first
        self._states[manifest.id] = state
        self._saved = False
        while len(self._states) > MAX_PAIRS:
            del self._states[next(iter(self._states))]

    def save(self) -> None:
        """What is known is on disk, as far as the disk lets it."""
        self._saved = self._saved or self._file.write(self._states)
