"""Runs the application on its sockets until a signal, then lets running answers finish."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from gemmad.api.paths import TcpAddress
from gemmad.server.access import AccessLogger
from gemmad.server.aiohttp_web import web
from gemmad.server.app import create_app
from gemmad.server.listeners import tcp_socket
from gemmad.server.services import Services

DRAIN_S = 10.0

log = logging.getLogger(__name__)


async def serve(
    build: Callable[[], Services],
    address: TcpAddress,
    socket_path: Path,
    listener: socket.socket,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """The daemon has run until SIGTERM or SIGINT and nothing of it is left running.

    `ready` is called once it listens.
    """
    stop = asyncio.Event()
    _on_signals(stop)
    services = build()
    services.residency.start()
    runner = web.AppRunner(
        create_app(services),
        access_log_class=AccessLogger,
        handler_cancellation=True,  # a client that leaves ends its handler, and so its work
        shutdown_timeout=DRAIN_S,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        if not await _start_tcp(runner, address):
            services.places["address"] = f"none: http://{address.host}:{address.port} is taken"
        log.info("listening on %s", socket_path)
        ready()
        await stop.wait()
        log.info("stopping: running answers have %.0f s to finish", DRAIN_S)
    finally:
        await services.pulls.close()  # they go on where they were: nobody waits for them to finish
        await runner.cleanup()
        await services.pulls.close()  # of requests that came meanwhile
        await services.residency.close()
        log.info("stopped")


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
            loop.add_signal_handler(number, stop.set)


async def _start_tcp(runner: web.AppRunner, address: TcpAddress) -> bool:
    """Listens on TCP too; a port that cannot be had is a warning, the socket serves without it."""
    try:
        listener = tcp_socket(address)
    except OSError as error:
        log.warning(
            "cannot listen on http://%s:%d: %s. Clients can use the socket; set GEMMA_HOST to "
            "choose another port.",
            *address,
            error.strerror,
        )
        return False
    await web.SockSite(runner, listener).start()
    log.info("listening on http://%s:%d", *address)
    return True
