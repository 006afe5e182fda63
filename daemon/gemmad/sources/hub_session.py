"""huggingface_hub's HTTP session with bounds: bytes, seconds, and where a redirect may lead.

The library reads an answer however long and slow it is, unpacks it, and follows any redirect. It
takes the token off a redirect to another origin itself.
"""

import importlib
import time
from collections.abc import Iterator
from typing import Any

from gemmad.api.errors import PullFailed
from gemmad.fetch.addresses import looks_private, resolve
from gemmad.fetch.hops import BadPlace, Place, follow
from gemmad.fetch.proxies import proxy_for

MAX_ANSWER_BYTES = 16 << 20
MAX_ANSWER_S = 60.0
_ALIASES = frozenset(("hf.co", "huggingface.co", "www.huggingface.co"))
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def bounded(session: Any) -> Any:
    """The session, whose answers end at the bounds above, come plain, and stay where they belong.

    Reading an answer raises PullFailed beyond a bound.
    """
    if getattr(session, "_gemma_bounded", False):
        return session
    stream_type = importlib.import_module(type(session).__module__.partition(".")[0]).SyncByteStream

    class Limited(stream_type):  # type: ignore[misc, valid-type]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            yield from _within(self._stream)

        def close(self) -> None:
            self._stream.close()

    def plain(request: Any) -> None:
        request.headers["Accept-Encoding"] = "identity"

    def bound(response: Any) -> None:
        response.stream = Limited(response.stream)
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PullFailed("The hub sent a compressed answer that was not asked for.")
        if response.has_redirect_location:
            require_followed(str(response.request.url), response.headers["location"])

    hooks = session.event_hooks
    hooks["request"].append(plain)
    hooks["response"].append(bound)
    session.event_hooks = hooks
    session._gemma_bounded = True
    return session


def require_followed(url: str, location: str) -> None:
    """The redirect may be followed.

    What a hub says of a repository is the hub's own to say. Its files may lie elsewhere, since
    their hashes are known by then, but not in this network when the hub is of the Internet.

    Raises:
        PullFailed: it may not.
    """
    try:
        here = Place.parse(url)
        there = follow(here, location, _LOOPBACK.__contains__)
    except BadPlace as error:
        raise _refused(url, str(error)) from error
    if there.host == here.host and (there.port == here.port or there.scheme != here.scheme):
        return
    if here.host in _ALIASES and there.host in _ALIASES:
        return
    if "/api/models" in here.target.partition("?")[0]:  # of any mirror, whatever stands before it
        raise _refused(url, f"another host, {there.netloc}")
    if _private(there) and not _private(here):
        raise _refused(url, f"{there.netloc}, an address of this network")


def _within(stream: Any) -> Iterator[bytes]:
    received, deadline = 0, time.monotonic() + MAX_ANSWER_S
    for chunk in stream:
        received += len(chunk)
        if received > MAX_ANSWER_BYTES:
            raise PullFailed("The hub's answer is too long to be believed.")
        if time.monotonic() > deadline:
            raise PullFailed(
                f"The hub took more than {MAX_ANSWER_S:.0f} s for one answer.", fix="Pull again."
            )
        yield chunk


def _private(place: Place) -> bool:
    if proxy_for(place):
        return looks_private(place.host)
    return not all(address.public for address in resolve(place.host, place.port))


def _refused(url: str, where: str) -> PullFailed:
    return PullFailed(
        f"{url.split('?')[0][:200]} redirects to {where}; that is not followed.",
        fix="Check HF_ENDPOINT, the proxy and the network's login page.",
    )
