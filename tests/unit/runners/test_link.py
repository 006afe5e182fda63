"""Frames between the daemon and a socket."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gemmad.runners.link import Link
from gemmad.wire import Generate, Hello, Message, Ping, Pong, WireError, encode


@pytest.fixture
async def ends() -> AsyncIterator[tuple[Link, socket.socket]]:
    """A link and the other end of its socket pair, which does not block."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    link = await Link.open(ours)
    yield link, theirs
    theirs.close()
    await link.close()


async def test_frames_come_one_by_one_then_none(ends: tuple[Link, socket.socket]) -> None:
    """Several frames in one packet are several messages; end of file is None."""
    link, theirs = ends
    theirs.send(encode(Hello(pid=1)) + encode(Pong(n=2)))
    theirs.close()

    assert [await link.receive() for _ in range(3)] == [Hello(pid=1), Pong(n=2), None]


async def test_bytes_of_no_frame_are_a_wire_error(ends: tuple[Link, socket.socket]) -> None:
    """The reader does not guess."""
    link, theirs = ends
    theirs.send(b"HTTP/1.1 200 OK\r\n")

    with pytest.raises(WireError):
        await link.receive()


async def test_send_waits_while_nobody_reads(ends: tuple[Link, socket.socket]) -> None:
    """A runner that does not read slows its sender instead of filling the daemon's memory."""
    link, theirs = ends
    big = Generate(id=1, messages=(Message(role="user", content="x" * 4_000_000),))
    sending = asyncio.ensure_future(link.send(big))
    await asyncio.wait({sending}, timeout=0.05)
    assert not sending.done()

    loop = asyncio.get_running_loop()
    received = 0
    while received < len(encode(big)):
        received += len(await loop.sock_recv(theirs, 1_000_000))

    await sending


async def test_send_to_a_closed_end_is_a_connection_error(
    ends: tuple[Link, socket.socket],
) -> None:
    """The sender learns that nobody is there."""
    link, theirs = ends
    theirs.close()

    link.post(Ping(n=1))

    with pytest.raises(ConnectionError):
        await link.send(Ping(n=2))


@pytest.mark.parametrize("ping_after_the_end", [False, True])
async def test_words_sent_before_a_reset_are_received(
    ends: tuple[Link, socket.socket], ping_after_the_end: bool
) -> None:
    """An end that dies with our bytes unread resets the channel; what it had sent still comes."""
    link, theirs = ends
    link.post(Ping(n=1))
    theirs.send(encode(Pong(n=1)) + encode(Pong(n=2)))
    theirs.close()
    if ping_after_the_end:
        link.post(Ping(n=2))  # finds nobody and breaks the channel before anything was read
    await asyncio.sleep(0.01)

    assert [await link.receive() for _ in range(3)] == [Pong(n=1), Pong(n=2), None]


async def test_frames_of_one_moment_arrive_together_and_in_order(
    ends: tuple[Link, socket.socket],
) -> None:
    """Requests that come at once wake the runner once."""
    link, theirs = ends
    wanted = [Ping(n=n) for n in range(3)]

    for message in wanted:
        link.post(message)
    together = await asyncio.get_running_loop().sock_recv(theirs, 1_000_000)

    assert together == b"".join(map(encode, wanted))


async def test_what_was_posted_before_the_end_arrives(ends: tuple[Link, socket.socket]) -> None:
    """Closing drops nothing."""
    link, theirs = ends
    link.post(Ping(n=1))

    await link.close()

    assert theirs.recv(1_000_000) == encode(Ping(n=1))
