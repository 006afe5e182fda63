"""Keeps what loads really took, by pair, device and settings: the next estimate begins there.

<state>/taken.json   {"<manifest id> <device kind> <settings>": {"device": 9663676416,
                      "host": 1468006400, "computed": 9512681472}, ...}

Of layers split over several GPUs each device has a key of its own, which ends in `last <device>` or
`before <device>`, and the bytes that it took beside its layers, embeddings and drafter.
A hint only: an unreadable file is forgotten. Of one key the greatest of the last loads is kept,
slowly sinking, so that one lucky reading does not make the next load fail.
"""

from dataclasses import replace
from pathlib import Path

import msgspec

from gemmad.core import ByteCount, Digest
from gemmad.formats.hints import HintFile
from gemmad.memory.estimate import Estimate, Setting

MAX_LOADS = 256
_SINKS = 0.1  # of the difference, with each load that took less


class Took(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes that one load took, after its first answer."""

    device: ByteCount  # of the device's budget; on unified memory with the host's part
    host: ByteCount = ByteCount(0)
    computed: ByteCount = ByteCount(0)  # what the estimate had said


class Taken:
    """What loads took; in memory at once, on disk when it is saved."""

    def __init__(self, path: Path) -> None:
        """What an earlier daemon saved is known."""
        self._file = HintFile(path, dict[str, Took], "what loads took")
        self._loads = self._file.read() or {}
        self._saved = True

    def known(self, pair: Digest, setting: Setting, place: str = "") -> Took | None:
        """What a load of this pair in this way took, if one did; on a `place` of a split."""
        return self._loads.get(_key(pair, setting, place))

    def corrected(self, pair: Digest, setting: Setting, computed: Estimate) -> Estimate:
        """`computed`, or what such a load took the last time."""
        found = self.known(pair, setting)
        if found is None:
            return computed
        return computed.corrected(found.device, None if computed.unified else found.host or None)

    def learned(self, pair: Digest, setting: Setting, took: Took, place: str = "") -> None:
        """A load in this way took so much."""
        key = _key(pair, setting, place)
        before = self._loads.pop(key, None)  # to the end: the oldest are forgotten first
        if before is not None and before.device > took.device:
            sunk = int(before.device - _SINKS * (before.device - took.device))
            took = msgspec.structs.replace(took, device=ByteCount(sunk))
        self._loads[key] = took
        self._saved = False
        while len(self._loads) > MAX_LOADS:
            del self._loads[next(iter(self._loads))]

    def save(self) -> None:
        """What is known is on disk, as far as the disk lets it."""
        self._saved = self._saved or self._file.write(self._loads)


def _key(pair: Digest, setting: Setting, place: str) -> str:
    told = replace(setting, free=None)
    words = (
        told.kind, told.num_ctx, told.slots, told.max_depth, told.drafter, told.quantize,
        told.draft_quantize, told.ple_on_host, told.deterministic, told.media, told.fused,
    )  # fmt: skip
    return f"{pair} " + " ".join(str(word) for word in (*words, *place.split()))
