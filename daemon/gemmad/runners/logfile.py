"""A runner's log: its last lines in memory, and a file on disk that never grows past a cap."""

from collections import deque
from pathlib import Path

MAX_LOG_BYTES = 1024 * 1024  # of the file, and again of its predecessor `NAME.1`
TAIL_LINES = 20
MAX_LINE_BYTES = 2000  # of a line kept in memory; a line may be anything a library prints


class CappedLog:
    """Bytes go to `path`; when it is full it becomes `path.1` and a new file begins."""

    def __init__(self, path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._open_line = b""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._size = 0

    def move(self, path: Path) -> None:
        """The file, with all that was written, is `path` from here on; what was there is gone.

        Raises:
            OSError: it could not be moved; it stays where it was.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path.replace(path)
        self._path = path

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first, without empty ones."""
        last = _readable(self._open_line)
        lines = (*self._tail, last) if last else tuple(self._tail)
        return lines[-TAIL_LINES:]

    def write(self, data: bytes) -> None:
        """`data` is in the file and its lines are in the tail."""
        *lines, rest = (self._open_line + data).split(b"\n")
        self._tail.extend(line for line in map(_readable, lines) if line)
        self._open_line = rest[:MAX_LINE_BYTES]
        if self._size + len(data) > self._max_bytes:
            self._rotate()
        self._file.write(data[-self._max_bytes :])
        self._file.flush()
        self._size += len(data)

    def close(self) -> None:
        """The file is closed; the tail stays readable."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        self._file = self._path.open("wb")
        self._size = 0


def _readable(line: bytes) -> str:
    return line[:MAX_LINE_BYTES].decode("utf-8", "replace").strip()
