"""The way from a file's URL to its bytes: redirects, who sees the token, what must not change."""

import http.client
import re
from collections.abc import Callable

from gemmad.api.errors import BadRequest, PullFailed
from gemmad.core import FileEntry, digest_hex
from gemmad.fetch.addresses import looks_private, resolve
from gemmad.fetch.answers import (
    Asked,
    Headers,
    Meaning,
    Reading,
    etag,
    linked_sha256,
    linked_size,
    read_answer,
)
from gemmad.fetch.connection import Connection, PrivateAddress, network_words
from gemmad.fetch.hops import BadPlace, Place, follow
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.ports import RemoteFile
from gemmad.fetch.proxies import proxy_for
from gemmad.fetch.trouble import (
    Subject,
    Transient,
    changed,
    denied,
    refused,
    unsafe_redirect,
)

_HARDLY_MENDS = 3
_TOKEN = re.compile(r"[\x21-\x7e]+")  # all that may stand in a header


class Route:
    """What all connections of one fetch know of the way. Fields are replaced whole: no lock."""

    def __init__(self, remote: RemoteFile, entry: FileEntry, limits: FetchLimits) -> None:
        """Nothing is dialled yet.

        Raises:
            PullFailed: the URL is none that can be fetched.
            BadRequest: the token is none.
        """
        try:
            self.origin = Place.parse(remote.url)
        except BadPlace as error:
            raise PullFailed(f"The source names {error} as a file's place.") from error
        if remote.token and not _TOKEN.fullmatch(remote.token):
            raise BadRequest(
                "The access token holds characters that no token has.",
                fix="Set HF_TOKEN to the token alone, without spaces and line ends.",
            )
        self.token = remote.token
        self.entry = entry
        self.limits = limits
        self.subject = Subject(self.origin.file_name, self.origin.netloc, self.origin.page)
        self.etags: dict[str, str] = {}  # of the first answer of each server
        self.ranges = False  # the server was seen to serve them
        self.ignored = 0  # answers in a row that ignored one; roughly, as threads race
        self._found: tuple[Place, bool] | None = None
        self._private: bool | None = None

    @property
    def start(self) -> tuple[Place, bool]:
        """Where to ask, and whether no other server was on the way: only then the token goes."""
        return self._found or (self.origin, True)

    @property
    def private(self) -> bool:
        """Whether the file's own host is of this network: then its redirects may be, too.

        Raises:
            Transient: the host's name could not be looked up.
        """
        if self._private is None:
            if proxy_for(self.origin):
                self._private = looks_private(self.origin.host)
            else:
                with network_words(self.limits):
                    addresses = resolve(self.origin.host, self.origin.port)
                self._private = not all(address.public for address in addresses)
        return self._private

    def found(self, place: Place, home: bool) -> None:
        """Bytes come from there: later requests go there at once."""
        self._found = (place, home)

    def forget(self) -> None:
        """The way is looked for anew: links of a CDN expire, and servers fail."""
        self._found = None


class Link:
    """One worker's connection along a route; `abort` may be called from any other thread."""

    def __init__(self, route: Route, stopped: Callable[[], bool], turn: int) -> None:
        self._route = route
        self._stopped = stopped
        self._turn = turn
        self._connection: Connection | None = None

    def ask(self, asked: Asked) -> "Body":
        """The bytes asked for, or the whole file where the server knows no ranges.

        Raises:
            Transient: this attempt failed.
            PullFailed: so will every other.
        """
        route = self._route
        place, home = route.start
        for _ in range(route.limits.hops + 1):
            response = self._exchange(place, home, asked)
            headers = {name.lower(): value for name, value in response.headers.items()}
            reading = read_answer(response.status, headers, asked)
            if reading.meaning is Meaning.REDIRECT:
                place = self._follow(place, home, headers)
                home = home and place.origin == route.origin.origin
                continue
            self._require_bytes(reading, response, place, home)
            self._require_same(place, headers)
            route.found(place, home)
            return Body(response, reading)
        raise Transient(f"more than {route.limits.hops} redirects")

    def close(self) -> None:
        """Nothing is open; the next question dials, another address if there is one."""
        self._drop()
        self._turn += 1

    def abort(self) -> None:
        """Whoever waits for this link gets an error now."""
        if (connection := self._connection) is not None:
            connection.abort()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, place: Place, home: bool, asked: Asked) -> http.client.HTTPResponse:
        headers = {"Range": asked.header}
        if home and self._route.token:
            headers["Authorization"] = f"Bearer {self._route.token}"
        connection = self._connection_to(place)
        reused = connection.asked > 0
        try:
            return connection.ask(place, headers)
        except Transient:
            if not reused or self._stopped():
                raise
            self._drop()  # a server may close an idle connection at any time: no failure yet
            return self._connection_to(place).ask(place, headers)
        except PrivateAddress as error:
            why = f"{place.netloc}, an address of this network"
            raise unsafe_redirect(self._route.subject, why) from error

    def _connection_to(self, place: Place) -> Connection:
        if self._connection is None or self._connection.origin != place.origin:
            self._drop()
            self._connection = Connection(
                place,
                self._route.limits,
                private=self._route.private,
                turn=self._turn,
                stopped=self._stopped,
            )
        return self._connection

    def _follow(self, place: Place, home: bool, headers: Headers) -> Place:
        self._drop()  # the redirect's body is not worth reading
        if home:
            self._require_planned(headers)
        try:
            return follow(place, headers.get("location"), self._may_be_plain)
        except BadPlace as error:
            raise unsafe_redirect(self._route.subject, str(error)) from error

    def _may_be_plain(self, host: str) -> bool:
        return self._route.private and host in ("localhost", "127.0.0.1", "::1")

    def _require_planned(self, headers: Headers) -> None:
        """A hub says with its redirect which file is behind it."""
        entry, subject = self._route.entry, self._route.subject
        if linked_size(headers) not in (None, entry.size):
            raise changed(subject, f"it has {linked_size(headers)} bytes, not {entry.size}")
        if linked_sha256(headers) not in (None, digest_hex(entry.digest)):
            raise changed(subject, f"its checksum is {linked_sha256(headers)}")

    def _require_bytes(
        self, reading: Reading, response: http.client.HTTPResponse, place: Place, home: bool
    ) -> None:
        """What the hub itself says is final; a CDN's links expire, and there are new ones."""
        subject = self._route.subject
        match reading.meaning:
            case Meaning.DENIED if home:
                code = response.headers.get("X-Error-Code", "")
                token = self._route.token is not None
                raise denied(subject, place.netloc, response.status, code, token)
            case Meaning.REFUSED if home:
                raise refused(subject, place.netloc, response.status)
            case Meaning.DENIED | Meaning.REFUSED:
                raise Transient(f"{place.netloc} answered HTTP {response.status}")
            case Meaning.OTHER_FILE:
                size = self._route.entry.size
                why = f"the file there is not of {size} bytes any more"
                raise Transient(why, weight=_HARDLY_MENDS)

    def _require_same(self, place: Place, headers: Headers) -> None:
        tag = etag(headers)
        if tag and self._route.etags.setdefault(place.netloc, tag) != tag:
            raise Transient("the file there was changed meanwhile", weight=_HARDLY_MENDS)


class Body:
    """The bytes that follow an answer's head."""

    def __init__(self, response: http.client.HTTPResponse, reading: Reading) -> None:
        self.whole = reading.meaning is Meaning.WHOLE
        self._response = response
        self._left = reading.length
        # Straight into the caller's buffer; with chunks in between, the library must pick them out.
        self._plain = reading.length is not None and not response.chunked

    def read_into(self, view: memoryview) -> int:
        """Some bytes stand at the beginning of `view`; 0: there are no more.

        Raises:
            OSError, http.client.HTTPException: the network failed.
        """
        if self._left is not None:
            view = view[: self._left]
        if not view:
            return 0
        if self._plain:
            count = self._response.fp.readinto1(view)
        else:
            data = self._response.read1(len(view))
            count = len(data)
            view[:count] = data
        if self._left is not None:
            self._left -= count
        return count

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on the connection."""
        return self._plain and self._left == 0 and not self._response.will_close
