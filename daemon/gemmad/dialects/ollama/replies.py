"""Events of an answer as Ollama's records; pure (time and randomness are arguments)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from gemmad.api.errors import GemmaError
from gemmad.wire import Delta, Done, ToolCall

Record = dict[str, Any]


def timestamp(unix_ns: int) -> str:
    """A moment as RFC 3339 in UTC, to the nanosecond."""
    seconds, nanoseconds = divmod(unix_ns, 10**9)
    return f"{_whole_second(seconds)}.{nanoseconds:09d}Z"


@functools.lru_cache(maxsize=8)  # the pieces of one second share it
def _whole_second(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%S}"


def error_record(error: GemmaError) -> Record:
    """An error's body, and its line when it comes in the middle of a stream."""
    return {"error": str(error), "code": error.code}


@dataclass(frozen=True, slots=True)
class Clock:
    """Where replies take the time and ids from."""

    unix_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]
    new_call_id: Callable[[], str]


@dataclass(slots=True)
class Reply:
    """Turns one answer's events into records, in the shape of /api/generate or /api/chat."""

    called: str
    chat: bool
    clock: Clock
    began_ns: int  # on clock.monotonic_ns
    load_ns: int = 0
    _calls: list[ToolCall] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _thinking: list[str] = field(default_factory=list)

    def delta(self, delta: Delta) -> Record:
        """The record of one piece."""
        calls = tuple(self._named(call) for call in delta.tool_calls)
        self._calls += calls
        self._text.append(delta.text)
        self._thinking.append(delta.thinking)
        return self._record(delta.text, delta.thinking, calls, done=False)

    def done(self, done: Done) -> Record:
        """The last record of a stream."""
        calls = () if self.chat else tuple(self._calls)
        return self._record("", "", calls, done=True) | self._figures(done)

    def whole(self, done: Done) -> Record:
        """The one record of an answer that is not streamed."""
        text, thinking = "".join(self._text), "".join(self._thinking)
        return self._record(text, thinking, tuple(self._calls), done=True) | self._figures(done)

    def empty(self, reason: str) -> Record:
        """The record of a request that only loaded or unloaded."""
        record = self._record("", "", (), done=True) | {"done_reason": reason}
        return record | {"total_duration": self._total_ns, "load_duration": max(1, self.load_ns)}

    def _record(
        self, text: str, thinking: str, calls: tuple[ToolCall, ...], *, done: bool
    ) -> Record:
        record: Record = {"model": self.called, "created_at": timestamp(self.clock.unix_ns())}
        extra: Record = {"thinking": thinking} if thinking else {}
        if calls:
            extra["tool_calls"] = [_call(n, call) for n, call in enumerate(calls)]
        if self.chat:
            record["message"] = {"role": "assistant", "content": text} | extra
        else:
            record |= {"response": text} | extra
        return record | {"done": done}

    def _figures(self, done: Done) -> Record:
        context = {} if self.chat else {"context": list(done.context)}
        return {
            "done_reason": done.reason,
            **context,
            "total_duration": self._total_ns,
            "load_duration": max(1, self.load_ns),
            "prompt_eval_count": done.prompt_tokens,
            "prompt_eval_duration": max(1, done.prompt_ns),
            "eval_count": done.eval_tokens,
            "eval_duration": max(1, done.eval_ns),
            "draft": msgspec.to_builtins(done.draft),
        }

    @property
    def _total_ns(self) -> int:
        return max(1, self.clock.monotonic_ns() - self.began_ns)

    def _named(self, call: ToolCall) -> ToolCall:
        return call if call.id else msgspec.structs.replace(call, id=self.clock.new_call_id())


def _call(index: int, call: ToolCall) -> Record:
    function = {"index": index, "name": call.name, "arguments": call.arguments}
    return {"id": call.id, "function": function}
