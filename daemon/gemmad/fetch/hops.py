"""URLs taken apart, and which redirect may follow which: nothing here touches the network."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_MOST_CHARS = 8192


class BadPlace(ValueError):
    """The URL is not one that is fetched; the text says what it is."""


@dataclass(frozen=True, slots=True)
class Place:
    """One URL: a server and what it is asked for."""

    scheme: str
    host: str  # lower case, no brackets
    port: int
    target: str  # path and query, percent-encoded

    @classmethod
    def parse(cls, url: str) -> "Place":
        """The URL's parts.

        Raises:
            BadPlace: no http(s) URL with a plain host.
        """
        try:
            parts = urlsplit(url[:_MOST_CHARS])
            port = parts.port
        except ValueError as error:
            raise BadPlace("something that is no URL") from error
        if parts.scheme not in _PORTS:
            raise BadPlace(f"a {parts.scheme[:20] or 'nameless'} address")
        if "@" in parts.netloc:
            raise BadPlace("an address with a user name in it")
        if not _HOST.fullmatch(host := (parts.hostname or "")):
            raise BadPlace("an address without a plain host name")
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
        return cls(parts.scheme, host.lower(), port or _PORTS[parts.scheme], path + query)

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a token and a connection belong to."""
        return self.scheme, self.host, self.port

    @property
    def netloc(self) -> str:
        """Host and port as the `Host` header has them; the port only where it is unusual."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """All of it."""
        return f"{self.scheme}://{self.netloc}{self.target}"

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return unquote(self.target.partition("?")[0].rsplit("/", 1)[-1])[:120]

    @property
    def page(self) -> str:
        """Where a person reads about the file: a hub's page of the repository."""
        return f"{self.scheme}://{self.netloc}{self.target.partition('/resolve/')[0]}"[:200]


def follow(place: Place, location: str | None, may_be_plain: Callable[[str], bool]) -> Place:
    """Where a redirect leads; `may_be_plain` tells hosts to which http is as good as https.

    Raises:
        BadPlace: it leads where nobody should follow.
    """
    if not location:
        raise BadPlace("nowhere")
    try:
        url = urljoin(place.url, location)
    except ValueError as error:
        raise BadPlace("something that is no URL") from error
    following = Place.parse(url)
    if place.scheme == "https" and following.scheme == "http" and not may_be_plain(following.host):
        raise BadPlace(f"{following.netloc} without encryption")
    return following
