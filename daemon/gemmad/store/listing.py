"""Every name of a store for those who list, read again only when its file is another or changed.

Who removes or verifies reads every manifest anew (`Manifests.all`): rot changes no file's time.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from gemmad.core import FileEntry, Manifest, ModelName
from gemmad.store.blobs import Blobs
from gemmad.store.disk import Disk
from gemmad.store.manifests import Broken, Manifests
from gemmad.store.paths import StorePaths

# A file's times tick this coarsely, so one changed later than that before it was read may be
# changed again and look the same (git calls such an entry of its index racily clean).
_TICK_NS = 2_000_000_000


class Listing:
    """The names, as they are on the disk at every call. Any thread may call."""

    def __init__(
        self,
        paths: StorePaths,
        disk: Disk,
        manifests: Manifests,
        blobs: Blobs,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._paths = paths
        self._disk = disk
        self._manifests = manifests
        self._blobs = blobs
        self._now_ns = now_ns
        self._known: dict[Path, _Known] = {}

    def all(self) -> list[Manifest | Broken]:
        """Every name; broken too when a blob it binds is missing or cut short.

        Raises:
            OSError: the disk refused.
        """
        seen: dict[FileEntry, bool] = {}
        return [self._judged(found, seen) for found in self._read()]

    def _judged(self, found: Manifest | Broken, seen: dict[FileEntry, bool]) -> Manifest | Broken:
        if isinstance(found, Broken):
            return found
        for entry in found.files:
            if entry not in seen:
                seen[entry] = self._blobs.present(entry)
            if not seen[entry]:
                name = ModelName.parse(found.name)
                why = f"The file {entry.digest} is missing or damaged."
                return Broken(name, f"{why} Pull it again: gemma pull {name.short}")
        return found

    def _read(self) -> list[Manifest | Broken]:
        begun_ns = self._now_ns()
        known: dict[Path, _Known] = {}
        found: list[Manifest | Broken] = []
        for path in self._disk.walk(self._paths.manifests):
            look = self._look(path)
            before = self._known.get(path)
            if look is not None and before is not None and before.look == look:
                known[path] = before
                found.append(before.manifest)
            elif (read := self._manifests.at(path)) is not None:
                found.append(read)
                if isinstance(read, Manifest) and look and look.newest_ns < begun_ns - _TICK_NS:
                    known[path] = _Known(look, read)
        self._known = known
        return found

    def _look(self, path: Path) -> "_Look | None":
        try:
            return _Look.of(self._disk.facts(path))
        except FileNotFoundError:
            return None  # unlinked while we walked


class _Look(NamedTuple):
    """What of a file changes when its content does."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, facts: os.stat_result) -> "_Look":
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)

    @property
    def newest_ns(self) -> int:
        return max(self.mtime_ns, self.ctime_ns)


class _Known(NamedTuple):
    look: _Look
    manifest: Manifest
