"""Sends files of this machine to a daemon that cannot read them: hashed first, sent if missing."""

import hashlib
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

from gemmacli.client import DaemonClient
from gemmacli.json_object import Json
from gemmacli.transport import Upload
from gemmad.api.errors import BadRequest

PIECE_BYTES = 4 << 20
Progress = Generator[Json, None, str]


def upload_all(
    client: DaemonClient, files: Mapping[str, Path]
) -> Generator[Json, None, dict[str, str]]:
    """The digest of each file; records of progress on the way. The daemon's store has them all.

    Raises:
        BadRequest: a file cannot be read, or it changed meanwhile.
        GemmaError: the daemon refused one.
    """
    digests = {}
    for name, path in files.items():
        try:
            with path.open("rb") as file:
                digests[name] = yield from _upload(client, name, file)
        except OSError as error:
            raise BadRequest(f"{path} cannot be read: {error.strerror or error}.") from error
    return digests


def _upload(client: DaemonClient, name: str, file: BinaryIO) -> Progress:
    size = os.fstat(file.fileno()).st_size
    digest = yield from _hashed(name, file, size)
    if client.has_blob(digest):
        return digest
    file.seek(0)
    yield from _sent(client, digest, name, file, size)
    return digest


def _hashed(name: str, file: BinaryIO, size: int) -> Progress:
    state, done = hashlib.sha256(), 0
    while piece := file.read(PIECE_BYTES):
        state.update(piece)
        done += len(piece)
        yield _record(f"hashing {name}", done, max(size, done))
    return f"sha256:{state.hexdigest()}"


def _sent(
    client: DaemonClient, digest: str, name: str, file: BinaryIO, size: int
) -> Generator[Json, None, None]:
    """Records while the file is sent from a thread: the one that yields must not wait for a socket.

    A file that changed since it was hashed is refused by the daemon, which hashes it again.
    """
    counted = _Counted(file)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            client.upload(digest, Upload(counted, size))
        except BaseException as error:  # a thread's end: raised again below, where it is awaited
            errors.append(error)
        finally:
            counted.sizes.put(None)

    thread, done = Thread(target=send, daemon=True), 0
    thread.start()
    while (count := counted.sizes.get()) is not None:
        done += count
        yield _record(f"uploading {name}", done, size)
    thread.join()
    if errors:
        raise errors[0]


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sizes: SimpleQueue[int | None] = SimpleQueue()

    def read(self, size: int = -1, /) -> bytes:
        """A piece of the file."""
        piece = self._file.read(size)
        self.sizes.put(len(piece))
        return piece


def _record(status: str, completed: int, total: int) -> Json:
    return {"status": status, "total": total, "completed": completed}
