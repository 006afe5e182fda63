"""What goes wrong when a hub is asked: what is tried again, and what a person must read; pure."""

import re
from collections.abc import Iterator
from typing import Any

from gemmad.api.errors import GemmaError, ModelNotFound, PullFailed

_PAUSES_S = (0.3, 1.0)  # before the second and third try of what may pass
_MOST_WAIT_S = 20.0  # a hub that asks for more patience ends the pull
_PASSING = (408, 429, 500, 502, 503, 504)
_RESET = re.compile(r"r=0;t=(\d{1,6})")  # of the header `ratelimit`


class Trouble:
    """The errors of one hub; `errors` is huggingface_hub's module of them."""

    def __init__(self, errors: Any, endpoint: str, *, token: bool) -> None:
        self._errors, self._endpoint, self._token = errors, endpoint, token

    def pauses(self) -> Iterator[float | None]:
        """The pause after each try; None: it was the last."""
        yield from _PAUSES_S
        yield None

    def wait(self, error: Exception, pause: float | None) -> float | None:
        """Seconds after which another try makes sense; None: none does."""
        if pause is None or isinstance(error, self._errors.OfflineModeIsEnabled):
            return None
        if isinstance(error, self._errors.HfHubHTTPError):
            asked = asked_wait(error)
            if _status(error) not in _PASSING or (asked or 0) > _MOST_WAIT_S:
                return None
            return max(pause, asked or 0.0)
        return pause if _of_network(error) else None

    def told(self, what: str, error: Exception) -> GemmaError:
        """The error in words for people."""
        errors = self._errors
        if isinstance(error, errors.GatedRepoError):
            return self._gated(what)
        if isinstance(error, errors.RepositoryNotFoundError):
            return ModelNotFound(
                f"The hub has no repository {what}, or it is private.",
                fix="Check the spelling; for a private one set HF_TOKEN to your token.",
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return ModelNotFound(f"{what} has no such revision.")
        if isinstance(error, errors.OfflineModeIsEnabled):
            return PullFailed(
                f"{what} cannot be asked for: HF_HUB_OFFLINE is set.", fix="Unset it to pull."
            )
        if isinstance(error, errors.HfHubHTTPError):
            return self._refused(what, _status(error), asked_wait(error))
        return PullFailed(
            f"{self._endpoint} could not be asked for {what}: {type(error).__name__}.",
            fix="Is this machine online? HF_ENDPOINT names another hub.",
        )

    def _gated(self, what: str) -> PullFailed:
        token = "with the account whose token HF_TOKEN is" if self._token else "and set HF_TOKEN"
        return PullFailed(
            f"{what} is gated: its licence must be accepted first.",
            fix=f"Accept it at {self._endpoint}/{what} {token}, then pull again.",
        )

    def _refused(self, what: str, status: int | None, wait_s: float | None) -> PullFailed:
        if status == 429:
            when = f"{wait_s:.0f} s" if wait_s else "a minute"
            return PullFailed(
                f"The hub asks to slow down (429 for {what}).", fix=f"Pull again in {when}."
            )
        if status in (401, 403):
            how = "takes no such token" if self._token else "wants a token"
            return PullFailed(
                f"The hub {how} for {what} (HTTP {status}).",
                fix=f"Set HF_TOKEN to a token of {self._endpoint} that may read it.",
            )
        return PullFailed(f"The hub answered {status} for {what}.", fix="Pull again later.")


def asked_wait(error: Exception) -> float | None:
    """Seconds that the hub asks to wait."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    text = str(headers.get("retry-after", "")).strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    reset = _RESET.search(str(headers.get("ratelimit", "")).replace(" ", ""))
    return float(reset[1]) if reset else None


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _of_network(error: Exception) -> bool:
    """Whether the connection failed, of the system's or the HTTP client's root of such errors."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, OSError) or "TransportError" in names
