"""Small JSON files of what a daemon learned: forgotten when unreadable, written whole or not."""

import logging
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

log = logging.getLogger(__name__)


class HintFile(Generic[T]):
    """One file; nothing depends on it."""

    def __init__(self, path: Path, kind: type[T], what: str) -> None:
        """`what` names it in the log."""
        self._path = path
        self._kind = kind
        self._what = what

    def read(self) -> T | None:
        """What was written last; None: nothing, or nothing that can be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=self._kind)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("forgetting %s: %s", self._what, error)
            return None

    def write(self, value: T) -> bool:
        """Whether `value` is on disk: as far as the disk lets it."""
        part = self._path.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(value))
            part.replace(self._path)
            return True
        except OSError as error:
            log.warning("%s could not be saved: %s", self._what, error)
            return False
