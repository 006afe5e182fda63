"""Who writes which blob: one writer a digest at a time, within this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gemmad.api.errors import Busy
from gemmad.core import Digest


class Writers:
    """The digests that are being written; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards `_active`, between all writers
        self._active: set[Digest] = set()

    def claim(self, digest: Digest) -> None:
        """The caller alone writes this blob, until it releases it.

        Raises:
            Busy: it is being written.
        """
        with self._lock:
            if digest in self._active:
                raise Busy(f"The file {digest} is being written already.", fix="Try again later.")
            self._active.add(digest)

    def release(self, digest: Digest) -> None:
        """The blob is free for another writer."""
        with self._lock:
            self._active.discard(digest)

    @contextmanager
    def claimed(self, digest: Digest) -> Iterator[None]:
        """Inside, the caller alone writes this blob. Errors as of `claim`."""
        self.claim(digest)
        try:
            yield
        finally:
            self.release(digest)
