"""The runner's main loop: frames in, a load in its own thread, then requests to `Serving`.

The main thread only reads frames and answers pings, so it does that also while a prompt is read.
The engine thread does all else in one life: it prepares if it is told to, loads, and runs the
engine. It is one thread because the template process dies with the thread that started it.
"""

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, assert_never

from gemmad.api.errors import GemmaError, LoadFailed
from gemmad.wire import (
    Attach,
    Cancel,
    Detach,
    Generate,
    Hello,
    Load,
    Measure,
    Ping,
    Pong,
    Prepare,
    Prepared,
    Reclaim,
    Reclaimed,
    Shutdown,
    WireError,
)
from gemmad.wire import LoadFailed as LoadFailedFrame
from gemmarunner.channel import Channel, Disconnected
from gemmarunner.progress import TICK_S, LoadProgress
from gemmarunner.serving import Served, Serving
from gemmarunner.tending import Chore

_log = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_BROKEN = 70  # sysexits' EX_SOFTWARE: what was loaded cannot be trusted any more
EXIT_PROTOCOL = 65  # EX_DATAERR
EXIT_DISCONNECTED = 76

Report = Callable[[str, int, int], None]  # phase, done, total


class Composer(Protocol):
    """Builds what serves a pair; both methods are called by the engine thread."""

    def prepare(self) -> None:
        """All that loads need is imported."""

    def compose(self, load: Load, report: Report) -> Served:
        """The pair is loaded.

        Raises:
            GemmaError: what is wrong, for the daemon's user.
        """


class Server:
    """One runner's life, from its hello to its last frame."""

    def __init__(self, channel: Channel, composer: Composer) -> None:
        self._channel = channel
        self._composer = composer
        self._progress = LoadProgress(channel.send)
        self._orders: queue.SimpleQueue[Prepare | Load] = queue.SimpleQueue()
        self._serving: Serving | None = None  # set by the engine thread, once
        self._failed = False  # set by the engine thread; the main thread then ends
        self._early: deque[Generate | Cancel | Chore] = deque()  # came while the pair was loading

    def run(self) -> int:
        """Serves until told to stop or left alone; returns the process's exit code."""
        try:
            self._channel.send(Hello(pid=os.getpid()))
            self._start(self._run_engine)
            while not self._failed:
                for frame in self._channel.receive(TICK_S):
                    if isinstance(frame, Shutdown):
                        return EXIT_DONE
                    self._on_frame(frame)
                self._progress.tick()
                self._pass_on()
            return EXIT_DONE
        except Disconnected:
            return EXIT_DISCONNECTED
        except WireError:
            _log.exception("the daemon broke the protocol")
            return EXIT_PROTOCOL

    def _on_frame(self, frame: Prepare | Load | Generate | Cancel | Chore | Ping) -> None:
        match frame:
            case Ping():
                self._channel.send(Pong(n=frame.n))
            case Prepare() | Load():
                self._orders.put(frame)
            case Reclaim() if self._serving is None:
                self._channel.send(Reclaimed(0))
            case Reclaim() | Detach() | Attach() | Measure():
                self._early.append(frame)
                self._pass_on()
            case Generate() | Cancel():
                self._early.append(frame)
                self._pass_on()
            case _:
                assert_never(frame)

    def _pass_on(self) -> None:
        """Requests go to the pair, once there is one; until then they wait."""
        while self._serving is not None and self._early:
            match self._early.popleft():
                case Generate() as request:
                    self._serving.add(request)
                case Cancel() as cancel:
                    self._serving.cancel(cancel.id)
                case chore:
                    self._serving.do(chore)

    def _run_engine(self) -> None:
        """The engine thread: carries out orders, the last of which is a load."""
        while True:
            match self._orders.get():
                case Prepare():
                    self._prepare()
                case Load() as load:
                    return self._serve_pair(load)

    def _prepare(self) -> None:
        """A failure is only logged: the load will meet it again, and can tell the daemon."""
        self._progress.report("import", 0, 0)
        try:
            self._composer.prepare()
        except Exception:
            _log.exception("the runner could not prepare")
            return
        finally:
            self._progress.finish()
        self._channel.send(Prepared())

    def _serve_pair(self, load: Load) -> None:
        """Loads, says so, and runs the engine for ever."""
        try:
            served = self._composer.compose(load, self._progress.report)
        except Exception as error:  # the daemon needs a sentence, the log the traceback
            _log.exception("the pair could not be loaded")
            self._progress.finish()
            self._channel.send(_load_failed(error))
            self._failed = True
            return
        self._progress.finish()
        serving = Serving(served, self._channel.send)
        self._start(serving.run_writer)
        self._serving = serving  # before the daemon knows of it: what it then asks finds a pair
        self._channel.send(served.loaded)
        serving.run_engine()

    def _start(self, work: Callable[..., object], *arguments: object) -> None:
        threading.Thread(target=_or_exit, args=(work, *arguments), daemon=True).start()


def _or_exit(work: Callable[..., object], *arguments: object) -> None:
    """A thread that the runner cannot do without: when it fails, the process ends."""
    try:
        work(*arguments)
    except Disconnected:
        os._exit(EXIT_DISCONNECTED)
    except BaseException:
        _log.exception("the runner cannot go on")
        logging.shutdown()
        os._exit(EXIT_BROKEN)


def _load_failed(error: Exception) -> LoadFailedFrame:
    if not isinstance(error, GemmaError):
        error = LoadFailed(f"The pair could not be loaded: {type(error).__name__}: {error}.")
    return LoadFailedFrame(code=error.code, message=error.message, fix=error.fix)
