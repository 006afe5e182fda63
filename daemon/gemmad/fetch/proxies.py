"""Which proxy the environment names for a place, as curl and the rest of the system read it."""

import base64
import urllib.request
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from gemmad.api.errors import BadRequest
from gemmad.fetch.hops import Place


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; https goes through it by CONNECT."""

    host: str
    port: int
    credentials: str | None = field(default=None, repr=False)  # base64, as Basic has it

    @property
    def headers(self) -> dict[str, str]:
        """What the proxy wants to see."""
        return {"Proxy-Authorization": f"Basic {self.credentials}"} if self.credentials else {}


def proxy_for(place: Place) -> Proxy | None:
    """The proxy for a place; None: it is dialled directly.

    Raises:
        BadRequest: the environment names a proxy of a kind that is not spoken here.
    """
    proxies = urllib.request.getproxies()
    text = proxies.get(place.scheme) or proxies.get("all")
    if not text or urllib.request.proxy_bypass(place.netloc):
        return None
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme != "http" or not parts.hostname:
        raise BadRequest(
            f"The proxy for {place.scheme} is of the kind {parts.scheme[:20]!r}.",
            fix="Set it as http://HOST:PORT, or add the host to no_proxy.",
        )
    plain = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    credentials = base64.b64encode(plain.encode()).decode() if parts.username else None
    return Proxy(parts.hostname, parts.port or 80, credentials)
