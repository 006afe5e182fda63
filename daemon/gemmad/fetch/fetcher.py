"""The door to this room: one awaitable call brings one file into the store."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from gemmad.core import ByteCount
from gemmad.fetch.bandwidth import Bandwidth
from gemmad.fetch.download import Download
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.ports import Partial, RemoteFile

REPORT_S = 0.1
_STOP_S = 0.8  # a thread that waits for a name server is left behind after that


class Fetcher:
    """Fetches files, several at once if asked to; all share one bound on bytes a second."""

    def __init__(self, limits: FetchLimits | None = None) -> None:
        self._limits = limits or FetchLimits()
        self._bandwidth = Bandwidth(self._limits.rate)

    def set_rate(self, rate: ByteCount | None) -> None:
        """No more than `rate` bytes a second from now on; None: as fast as it goes."""
        self._bandwidth.set_rate(rate)

    async def fetch(
        self, remote: RemoteFile, partial: Partial, on_progress: Callable[[int], None]
    ) -> None:
        """The file is in the store. `on_progress` hears how many of its bytes are here, never less.

        Cancelled, it ends within a second, and the partial holds what came; its owner closes it.

        Raises:
            PullFailed: the network, the server, or the bytes; it says which.
            WillNotFit: the disk is full.
            StoreBroken: the disk refused.
        """
        download = Download(remote, partial, self._limits, self._bandwidth)
        running = _start(download.run)
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=REPORT_S)
                on_progress(download.completed)
        finally:
            if not running.done():
                download.stop()
                await asyncio.wait({running}, timeout=_STOP_S)
        running.result()


def _start(run: Callable[[], None]) -> asyncio.Future[None]:
    """What `run` comes to in a thread of its own."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # heard of

    def tell(error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(None)

    def work() -> None:
        error: BaseException | None = None
        try:
            run()
        except BaseException as raised:  # whatever it is, the waiting task gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=work, name="fetch director", daemon=True).start()
    return future
