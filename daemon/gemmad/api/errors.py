"""The one tree of errors that cross a border, each with a code, an HTTP status and a next step.

GemmaError
├── BadRequest              400  the request itself is wrong (names the field)
│   ├── ModelfileError      400  in api/modelfile.py; names the line
│   ├── PromptTooLong       400  more tokens than the context holds
│   ├── TooLarge            413  the body is over the route's limit
│   └── TooSlow             408  the body did not arrive within the deadline
├── ModelNotFound           404  no such name in the store
├── Refused                 403  the guard: host, origin, token
├── Busy                    503  queue full or shutting down; carries retry_after_s
├── TimedOut                504  an answer took longer than the settings allow
├── WillNotFit              507  memory or disk, with numbers
├── PullFailed              502  a source could not be read or did not verify
├── StoreBroken             500  a manifest or blob on disk is damaged
├── PairMismatch            409  drafter and target do not belong together
├── LoadFailed              500  the runner could not load the pair
├── RunnerCrashed           500  the runner died; carries exit code and last log lines
└── DaemonUnreachable        -   client side: nothing answers on the socket
"""

from collections.abc import Sequence
from typing import ClassVar


class GemmaError(Exception):
    """Something a person must read: what happened, and what to do next."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}" if self.fix else self.message


class BadRequest(GemmaError):
    """The request is malformed; the message names the field and the accepted form."""

    code = "bad_request"
    status = 400


class PromptTooLong(BadRequest):
    """The prompt has more tokens than the context holds."""

    code = "prompt_too_long"


class TooLarge(BadRequest):
    """The body is over the route's limit."""

    code = "too_large"
    status = 413


class TooSlow(BadRequest):
    """The body did not arrive within the deadline."""

    code = "too_slow"
    status = 408


class ModelNotFound(GemmaError):
    """The store has no such name."""

    code = "model_not_found"
    status = 404


class Refused(GemmaError):
    """The guard refused the caller: host, origin or content type."""

    code = "refused"
    status = 403


class Busy(GemmaError):
    """No room in the queue, or the daemon is stopping; try again later."""

    code = "busy"
    status = 503

    def __init__(self, message: str, *, fix: str | None = None, retry_after_s: int = 5) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s


class TimedOut(GemmaError):
    """The answer took longer than a request may; what there was of it was sent."""

    code = "timed_out"
    status = 504


class WillNotFit(GemmaError):
    """Memory or disk is short; the message carries needed and free bytes."""

    code = "will_not_fit"
    status = 507


class PullFailed(GemmaError):
    """A source could not be read, or what it sent did not verify."""

    code = "pull_failed"
    status = 502


class StoreBroken(GemmaError):
    """A manifest or blob on this disk is damaged."""

    code = "store_broken"


class Unsupported(GemmaError):
    """Model files this program cannot run: damaged, hostile, or of another architecture."""

    code = "unsupported"
    status = 422


class PairMismatch(GemmaError):
    """Drafter and target do not belong together; the message names the two values."""

    code = "pair_mismatch"
    status = 409


class LoadFailed(GemmaError):
    """The runner answered, but could not load the pair."""

    code = "load_failed"


class RunnerCrashed(GemmaError):
    """The runner process died; its last log lines say why."""

    code = "runner_crashed"

    def __init__(
        self,
        message: str,
        *,
        fix: str | None = None,
        exit_code: int | None = None,
        log_tail: Sequence[str] = (),
        out_of_memory: bool = False,
    ) -> None:
        super().__init__(message, fix=fix)
        self.exit_code = exit_code
        self.out_of_memory = out_of_memory  # the system killed it for want of memory
        self.log_tail = tuple(log_tail)


class DaemonUnreachable(GemmaError):
    """Nothing answers on the daemon's socket."""

    code = "daemon_unreachable"
    status = 0
