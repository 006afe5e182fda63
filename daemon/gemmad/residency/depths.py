"""Keeps what the depth controller learned of each pair, so that a reload need not learn it again.

<state>/depths.json   {"<manifest id>": {...the controller's own words...}, ...}
"""

import logging
from pathlib import Path

import msgspec

from gemmad.core import Digest, Manifest

MAX_PAIRS = 64

log = logging.getLogger(__name__)


class DepthStates:
    """Depth states by pair; in memory at once, on disk when a pair is unloaded."""

    def __init__(self, path: Path) -> None:
        """What an earlier daemon saved is known; an unreadable file is forgotten (a hint only)."""
        self._path = path
        self._states: dict[Digest, dict[str, object]] = {}
        self._saved = True
        try:
            kind = dict[Digest, dict[str, object]]
            self._states = msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("forgetting saved draft depths: %s", error)

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
        if self._saved:
            return
        part = self._path.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(self._states))
            part.replace(self._path)
            self._saved = True
        except OSError as error:
            log.warning("draft depths could not be saved: %s", error)
