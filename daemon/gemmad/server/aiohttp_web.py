"""aiohttp's server half, imported without the certificates that its client half reads at import.

aiohttp has no import of the server alone, and its client makes two TLS contexts at once: a tenth of
the daemon's start. The daemon asks nobody through aiohttp; a client made of it here would trust no
server, so nothing is less safe. Whoever imports aiohttp first in the daemon imports it from here.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _no_certificates() -> Iterator[None]:
    """Inside, a new context knows no authorities."""
    load = ssl.SSLContext.load_default_certs
    ssl.SSLContext.load_default_certs = lambda *_: None  # type: ignore[method-assign]
    ssl.SSLContext.set_default_verify_paths = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        ssl.SSLContext.load_default_certs = load  # type: ignore[method-assign]
        del ssl.SSLContext.set_default_verify_paths  # of its base class, as before


with _no_certificates():
    from aiohttp import web
    from aiohttp.abc import AbstractAccessLogger

__all__ = ["AbstractAccessLogger", "web"]
