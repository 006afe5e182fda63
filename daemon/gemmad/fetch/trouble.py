"""What goes wrong on the way, in words: what may be tried again, and what a person must read."""

import errno
from dataclasses import dataclass

from gemmad.api.errors import GemmaError, PullFailed, StoreBroken, WillNotFit

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Transient(Exception):
    """This attempt failed; another one may not. `wait_s` is what the server asked for.

    `weight`: as how many failed attempts it counts; what hardly ever mends itself counts more.
    """

    def __init__(self, why: str, *, wait_s: float | None = None, weight: int = 1) -> None:
        super().__init__(why)
        self.why = why
        self.wait_s = wait_s
        self.weight = weight


@dataclass(frozen=True, slots=True)
class Subject:
    """What an error is about."""

    name: str  # of the file
    host: str  # that was asked for it
    page: str  # where a person reads about it


def gave_up(subject: Subject, why: str, attempts: int) -> PullFailed:
    """After all attempts."""
    return PullFailed(
        f"{subject.name} could not be fetched from {subject.host}: {why} ({attempts} attempts).",
        fix="Check the connection and pull again: what is here is kept.",
    )


def asks_to_wait(subject: Subject, seconds: float) -> PullFailed:
    """The server wants more patience than we have."""
    return PullFailed(
        f"{subject.host} asks to wait {seconds:.0f} s before {subject.name} is asked for again.",
        fix="Pull again then: what is here is kept.",
    )


def denied(subject: Subject, host: str, status: int, code: str, token: bool) -> PullFailed:
    """401, 403 or 451: not for this user."""
    if host != subject.host:
        return PullFailed(
            f"{host} does not give {subject.name} (HTTP {status}).", fix="Pull again."
        )
    account = "of an account that may read it" if token else "to an access token"
    if code == "GatedRepo":
        return PullFailed(
            f"{subject.host} does not give {subject.name}: its licence must be accepted first.",
            fix=f"Accept it at {subject.page} and set HF_TOKEN to that account's token.",
        )
    return PullFailed(
        f"{subject.host} does not give {subject.name} (HTTP {status}).",
        fix=f"Set HF_TOKEN {account}; {subject.page} says who may have it.",
    )


def refused(subject: Subject, host: str, status: int) -> PullFailed:
    """An answer that no retry will change."""
    if status in (404, 410):
        return PullFailed(
            f"{subject.name} is not at {host} any more (HTTP {status}).",
            fix=f"See {subject.page}, then pull again.",
        )
    return PullFailed(
        f"{host} answered HTTP {status} to the request for {subject.name}.",
        fix=f"See {subject.page}, then pull again.",
    )


def changed(subject: Subject, what: str) -> PullFailed:
    """The file there is not the one that was planned."""
    return PullFailed(
        f"{subject.name} at {subject.host} is another file now: {what}.", fix="Pull again."
    )


def wrong_bytes(subject: Subject, digest: str) -> PullFailed:
    """Two readings, neither with the right hash."""
    return PullFailed(
        f"{subject.host} sends other bytes of {subject.name} than its checksum {digest} promises; "
        "a second reading did not help. Nothing of it was kept.",
        fix="Pull again later, or over another connection.",
    )


def unsafe_redirect(subject: Subject, why: str) -> PullFailed:
    """A redirect that is not followed."""
    return PullFailed(
        f"{subject.host} redirects {subject.name} to {why}; that is not followed.",
        fix="Check HF_ENDPOINT, the proxy and the network's login page.",
    )


def disk_trouble(subject: Subject, error: OSError, completed: int, size: int) -> GemmaError:
    """The disk refused what the network brought."""
    if error.errno in _FULL:
        return WillNotFit(
            f"The disk is full: {completed} of the {size} bytes of {subject.name} are here, "
            f"{size - completed} are still needed.",
            fix="Make room and pull again: what is here is kept.",
        )
    return StoreBroken(
        f"The disk refused a part of {subject.name}: {error.strerror or error}.",
        fix="Check the disk and pull again.",
    )
