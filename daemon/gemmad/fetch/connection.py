"""One HTTP/1.1 connection that another thread may cut: dialled, encrypted, asked, read."""

import contextlib
import functools
import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping

from gemmad.api.version import VERSION
from gemmad.fetch.addresses import Address, looks_private, resolve
from gemmad.fetch.hops import Place
from gemmad.fetch.limits import FetchLimits
from gemmad.fetch.proxies import Proxy, proxy_for
from gemmad.fetch.trouble import Transient

_FIRST_TRY_S = 3.0  # for an address that is not the last: a dead IPv6 route must not cost the pull
_HEAD_LINE = 65536


class PrivateAddress(Exception):
    """The host is of this network, and the file is not."""


class Connection:
    """A connection to one server. One thread uses it; `abort` may be called from any other."""

    def __init__(
        self,
        place: Place,
        limits: FetchLimits,
        *,
        private: bool,
        turn: int,
        stopped: Callable[[], bool],
    ) -> None:
        """Nothing is dialled before the first question.

        `private`: addresses of this network are fine. `turn` rotates the server's addresses.
        """
        self.origin = place.origin
        self.asked = 0
        self._place, self._limits = place, limits
        self._private, self._turn, self._stopped = private, turn, stopped
        self._proxy: Proxy | None = None
        self._socket: socket.socket | None = None  # set by the user, read by `abort`
        self._response: http.client.HTTPResponse | None = None

    def ask(self, place: Place, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """The head of the answer to a GET; the body is read next, or the connection closed.

        Raises:
            Transient: the network failed.
            PrivateAddress: the host is not to be dialled.
        """
        with network_words(self._limits):
            if self._socket is None:
                self._open()
            assert self._socket is not None
            self._socket.sendall(self._request(place, headers))
            self.asked += 1
            self._response = http.client.HTTPResponse(self._socket, method="GET")
            self._response.begin()
            return self._response

    def close(self) -> None:
        """Nothing is open."""
        if self._response is not None:
            self._response.close()
        if self._socket is not None:
            self._socket.close()
        self._response = self._socket = None

    def abort(self) -> None:
        """Whoever waits for this connection gets an error now."""
        if (open_socket := self._socket) is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own shutdown: it would pull the TLS state from under the reader.
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    def _open(self) -> None:
        self._proxy = proxy_for(self._place)
        if self._proxy is None:
            self._dial(self._reachable(resolve(self._place.host, self._place.port)))
        else:
            if not self._private and looks_private(self._place.host):
                raise PrivateAddress(self._place.host)
            self._dial(resolve(self._proxy.host, self._proxy.port))
        if self._place.scheme == "https":
            self._encrypt()

    def _reachable(self, addresses: list[Address]) -> list[Address]:
        """The addresses, rotated; one of this network among them spoils all."""
        if not self._private and not all(address.public for address in addresses):
            raise PrivateAddress(self._place.host)
        turn = self._turn % len(addresses)
        return addresses[turn:] + addresses[:turn]

    def _dial(self, addresses: list[Address]) -> None:
        for address in addresses:
            last = address is addresses[-1]
            wait_s = self._limits.connect_s
            self._socket = socket.socket(address.family, socket.SOCK_STREAM)
            self._socket.settimeout(wait_s if last else min(wait_s, _FIRST_TRY_S))
            if self._stopped():
                raise Transient("stopped")
            try:
                self._socket.connect(address.sockaddr)
                break
            except OSError:
                self._socket.close()
                if last:
                    raise
        assert self._socket is not None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(self._limits.stall_s)

    def _encrypt(self) -> None:
        assert self._socket is not None
        if self._proxy is not None:
            self._tunnel(self._proxy)
        self._socket = tls_context().wrap_socket(self._socket, server_hostname=self._place.host)

    def _tunnel(self, proxy: Proxy) -> None:
        assert self._socket is not None
        host = f"[{self._place.host}]" if ":" in self._place.host else self._place.host
        server = f"{host}:{self._place.port}"
        lines = [f"CONNECT {server} HTTP/1.1", f"Host: {server}"]
        lines += [f"{name}: {value}" for name, value in proxy.headers.items()]
        self._socket.sendall("\r\n".join((*lines, "", "")).encode("latin-1"))
        answer = http.client.HTTPResponse(self._socket, method="CONNECT")
        try:
            answer.begin()
            if answer.status != 200:
                raise Transient(f"the proxy {proxy.host} answered HTTP {answer.status}")
        finally:
            answer.close()

    def _request(self, place: Place, headers: Mapping[str, str]) -> bytes:
        through = self._proxy is not None and place.scheme == "http"
        every = {
            "Host": place.netloc,
            "User-Agent": f"gemma-home/{VERSION}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **headers,
            **(self._proxy.headers if through and self._proxy else {}),
        }
        first = f"GET {place.url if through else place.target} HTTP/1.1"
        lines = (first, *(f"{name}: {value}" for name, value in every.items()), "", "")
        return "\r\n".join(lines).encode("latin-1")


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Certificates are checked against the system's list, or the packaged one if it has none."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not context.cert_store_stats()["x509_ca"] and not ssl.get_default_verify_paths().capath:
        import certifi  # macOS without a system list for Python

        context.load_verify_locations(certifi.where())
    return context


@contextlib.contextmanager
def network_words(limits: FetchLimits) -> Iterator[None]:
    """Errors of the network become `Transient`, in words.

    Raises:
        Transient: the network failed.
    """
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Transient(f"its certificate is refused, {error.verify_message}", weight=4) from error
    except TimeoutError as error:
        raise Transient(f"no answer for {limits.stall_s:g} s") from error
    except socket.gaierror as error:
        raise Transient("its name could not be looked up") from error
    except ConnectionRefusedError as error:
        raise Transient("nothing listens there") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: a socket that `abort` shut down while it was being opened.
        raise Transient("the connection broke") from error
