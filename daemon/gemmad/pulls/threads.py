"""Blocking steps in worker threads: those whose files must not be closed under them, and others."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of a blocking step; cancelling waits for its end."""
    running = asyncio.ensure_future(asyncio.to_thread(step, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at: what a cancelled step failed with is nobody's news
        raise


async def in_thread_of_its_own(step: Callable[[], T], name: str) -> T:
    """The result of a step that only asks; cancelled, it is left behind and its result dropped.

    Not one of the pool's threads: those that a silent server holds would be missing there, and the
    program's end would wait for them.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if answer.cancelled():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # a T where there is no error

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = step()
        except BaseException as raised:  # whatever it is, the waiting task gets it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await answer
