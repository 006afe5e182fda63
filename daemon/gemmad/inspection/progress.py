"""Says on standard error which file is read, so that the parent of a killed process can name it."""

import sys

MARK = "reading "


def now_reading(name: str) -> None:
    """The last line so marked names the file that is read."""
    sys.stderr.write(f"{MARK}{name}\n")
    sys.stderr.flush()


def last_read(stderr: bytes) -> str | None:
    """The file that was read when the process ended."""
    lines = stderr.decode("utf-8", "replace").splitlines()
    return next((line.removeprefix(MARK) for line in lines[::-1] if line.startswith(MARK)), None)
