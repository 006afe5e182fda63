"""What a runner was asked and has not answered yet; of each kind it answers in the order asked."""

import asyncio
import copy
from collections import deque
from typing import Any, NamedTuple

from gemmad.api.errors import GemmaError, RunnerCrashed
from gemmad.runners.handshake import error_from
from gemmad.wire import (
    Attach,
    Attached,
    AttachFailed,
    Detach,
    Detached,
    Measure,
    Measured,
    Reclaim,
    Reclaimed,
)

Question = Reclaim | Detach | Attach | Measure
Reply = Reclaimed | Detached | Attached | AttachFailed | Measured

_ANSWERED_BY: dict[type[Reply], type[Question]] = {
    Reclaimed: Reclaim,
    Detached: Detach,
    Attached: Attach,
    AttachFailed: Attach,
    Measured: Measure,
}


class _Waiting(NamedTuple):
    answer: "asyncio.Future[Any]"
    when_gone: int | None  # the answer of a runner that is gone; None: an error


class Questions:
    """Written by whoever asks; settled by the task that reads frames, at the end by who ends it."""

    def __init__(self) -> None:
        self._waiting: dict[type[Question], deque[_Waiting]] = {
            kind: deque() for kind in (Reclaim, Detach, Attach, Measure)
        }

    def ask(self, question: Question, when_gone: int | None) -> "asyncio.Future[Any]":
        """Done when the runner has answered, or is gone."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[type(question)].append(_Waiting(answer, when_gone))
        return answer

    def settle(self, reply: Reply) -> bool:
        """The oldest question of this kind is answered; False when none was asked."""
        waiting = self._waiting[_ANSWERED_BY[type(reply)]]
        if not waiting:
            return False
        answer = waiting.popleft().answer
        match reply:
            case AttachFailed():
                _fail(answer, error_from(reply, otherwise=GemmaError))
            case Measured():
                _answer(answer, reply)
            case Attached(drafter_bytes=nbytes) | Reclaimed(nbytes) | Detached(nbytes):
                _answer(answer, nbytes)
        return True

    def end(self, error: RunnerCrashed) -> None:
        """The runner is gone: nobody waits any more."""
        for waiting in self._waiting.values():
            for answer, when_gone in waiting:
                if when_gone is None:
                    _fail(answer, copy.copy(error))
                else:
                    _answer(answer, when_gone)
            waiting.clear()


def _answer(answer: "asyncio.Future[Any]", value: object) -> None:
    if not answer.done():  # whoever waited may have been cancelled
        answer.set_result(value)


def _fail(answer: "asyncio.Future[Any]", error: GemmaError) -> None:
    if not answer.done():
        answer.set_exception(error)
