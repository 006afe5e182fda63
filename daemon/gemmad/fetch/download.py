"""One file into its partial and into the store: its threads, its hash, and its second reading.

Beside the workers two threads keep up with them, so that little is left to do when the last byte is
here: the director hashes, and another makes the disk write what the system would hold back.
"""

import contextlib
import itertools
import threading
from collections.abc import Iterable, Iterator

from gemmad.api.errors import PullFailed
from gemmad.fetch.bandwidth import Bandwidth
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.ports import Partial, RemoteFile
from gemmad.fetch.route import Route
from gemmad.fetch.sinks import Comparing, Keeping, Sink
from gemmad.fetch.trouble import disk_trouble, wrong_bytes
from gemmad.fetch.work import Piece, Work
from gemmad.fetch.worker import Worker

_MISMATCH = "digest_mismatch"  # `code` of the error that `Partial.commit` raises
_ROUNDS = 3  # readings of what differs, before it is given up
_NEWS_S = 0.5
SYNC_BYTES = 64 << 20  # so much may wait for the disk: whoever cancels may wait for it, too


class Download:
    """Brings one file. `run` blocks in a thread of its own; `stop` and `completed` are for others.

    The director is the thread in `run`: it hashes beside the workers, then commits.
    """

    def __init__(
        self, remote: RemoteFile, partial: Partial, limits: FetchLimits, bandwidth: Bandwidth
    ) -> None:
        """Nothing is dialled yet.

        Raises:
            PullFailed: the URL is none that can be fetched.
        """
        self._partial, self._limits, self._bandwidth = partial, limits, bandwidth
        self._route = Route(remote, partial.entry, limits)
        self._keeping = Keeping(partial, self._route.subject)
        self._stopping = threading.Event()
        self._work: Work | None = None  # what is under way; written by the director
        self._troubled: set[int] = set()
        self._unsynced: OSError | None = None  # what was written is lost; set by the syncing thread
        self._most = 0  # what `completed` has said; it never says less

    @property
    def completed(self) -> int:
        """Bytes that are here; what is brought a second time is not counted again."""
        work = self._work
        now = self._partial.entry.size - work.left if work else self._partial.completed
        self._most = max(self._most, now)
        return self._most

    def stop(self) -> None:
        """`run` ends soon; what is here is kept."""
        self._stopping.set()
        if work := self._work:
            work.stop()

    def run(self) -> None:
        """The blob is in the store.

        Raises:
            GemmaError: it could not be fetched, or is not what it should be.
        """
        try:
            self._bring(self._partial.missing())
            self._commit()
        except OSError as error:
            done, size = self._partial.completed, self._partial.entry.size
            raise disk_trouble(self._route.subject, error, done, size) from error

    def _bring(self, chunks: Iterable[int]) -> None:
        work = Work(map(self._rest, chunks), self._route.subject, self._limits)
        self._work = work
        syncing = threading.Thread(target=self._sync, args=(work,), name="fetch sync", daemon=True)
        syncing.start()
        try:
            with self._workers(work, self._keeping):
                while not work.ended:
                    self._partial.digest_ahead()
                    work.wait(_NEWS_S)
        finally:
            work.stop()
            syncing.join()
            if self._unsynced:  # a failed sync is told once: `commit` would not hear of it
                self._partial.discard()
                raise self._unsynced  # whatever the others said of a partial that is gone
        if work.error:
            raise work.error
        self._troubled |= work.troubled

    def _rest(self, chunk: int) -> Piece:
        piece, kept = self._whole(chunk, chunk), self._partial.kept(chunk)
        piece.done, piece.crc = kept.nbytes, kept.crc
        if kept.nbytes:
            self._troubled.add(chunk)
        return piece

    def _whole(self, chunk: int, rank: int) -> Piece:
        begin = chunk * self._partial.chunk_bytes
        size = self._partial.entry.size
        return Piece(chunk, begin, min(self._partial.chunk_bytes, size - begin), rank)

    @contextlib.contextmanager
    def _workers(self, work: Work, sink: Sink) -> Iterator[None]:
        """Workers bring the pieces meanwhile; afterwards they are done, or the error is raised."""
        workers = self._start(work, sink)
        try:
            yield
        except BaseException:
            work.stop()
            raise
        for worker in workers:
            worker.join()
        if self._stopping.is_set():
            raise PullFailed("The download was stopped.", fix="Pull again to go on.")
        if work.error:
            raise work.error

    def _sync(self, work: Work) -> None:
        synced = self._partial.completed
        try:
            while not work.ended:
                if (here := self._partial.completed) - synced >= SYNC_BYTES:
                    self._partial.sync_ahead()
                    synced = here
                work.wait(_NEWS_S)
        except PullFailed as error:  # closed meanwhile
            work.fail(error)
        except OSError as error:
            self._unsynced = error
            work.fail(error)

    def _start(self, work: Work, sink: Sink) -> list[threading.Thread]:
        if self._stopping.is_set():
            work.stop()
        count = min(self._limits.connections, self._partial.chunks)
        threads = []
        for turn in range(count):
            worker = Worker(
                work,
                self._route,
                sink,
                self._bandwidth,
                self._stopping.wait,
                turn=turn,
                keep_bytes=self._partial.chunk_bytes // self._limits.connections,
            )
            # A daemon: a name that cannot be looked up must not hold the program's end.
            threads.append(threading.Thread(target=worker.run, name="fetch", daemon=True))
            threads[-1].start()
        return threads

    def _commit(self) -> None:
        """1. Commit. 2. What the disk changed is brought again. 3. What the network may have
        changed is read a second time, and where the copies differ the newer one is taken, until
        the hash is right. 4. After that nothing here can be believed.
        """
        suspects: list[int] | None = None
        for _ in range(_ROUNDS):
            if self._committed():  # 1
                return
            if missing := self._partial.missing():  # 2
                self._bring(missing)
                continue
            suspects = self._by_suspicion() if suspects is None else suspects
            suspects = self._compare(suspects)  # 3
            if suspects is None:
                return
            if not suspects:
                break
        self._partial.discard()  # 4
        raise wrong_bytes(self._route.subject, self._partial.entry.digest)

    def _committed(self) -> bool:
        try:
            self._partial.commit()
        except PullFailed as error:
            if error.code != _MISMATCH:
                raise
            return False
        return True

    def _by_suspicion(self) -> list[int]:
        """All chunks, those first that did not come in one go."""
        return sorted(range(self._partial.chunks), key=lambda chunk: chunk not in self._troubled)

    def _compare(self, chunks: list[int]) -> list[int] | None:
        """None: committed. Else the chunks whose two copies differed, and neither was right."""

        def remedied() -> bool:
            if committed := self._committed():
                work.stop()
            return committed

        comparing = Comparing(self._keeping, self._partial, remedied)
        work = Work(map(self._whole, chunks, itertools.count()), self._route.subject, self._limits)
        self._most = max(self._most, self.completed)
        self._work = work
        with self._workers(work, comparing):
            while not work.ended:
                work.wait(_NEWS_S)
        return None if comparing.settled else sorted(comparing.differed)
