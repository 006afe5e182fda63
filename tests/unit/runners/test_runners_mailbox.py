"""Between the task that reads a runner's frames and the one that asked."""

import asyncio

from gemmad.api.errors import RunnerCrashed
from gemmad.runners.mailbox import Mailbox
from gemmad.wire import Delta, RequestRefused

ONE, TWO = Delta(id=1, text="one"), Delta(id=1, text="two")
REFUSED = RequestRefused(id=1, code="bad_request", message="No.")


async def test_what_came_meanwhile_is_taken_together() -> None:
    """In order, and once."""
    mailbox = Mailbox()
    mailbox.put(ONE)
    mailbox.put(TWO)
    assert await mailbox.take() == [ONE, TWO]

    mailbox.put(TWO)

    assert await mailbox.take() == [TWO]


async def test_who_waits_gets_the_first_piece_as_it_comes() -> None:
    """It does not wait for a second."""
    mailbox = Mailbox()
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)

    mailbox.put(ONE)

    assert await taking == [ONE]


async def test_nothing_follows_the_end_of_an_answer() -> None:
    """A runner that dies after it has answered spoils no answer."""
    mailbox = Mailbox()
    mailbox.put(ONE)
    mailbox.put(REFUSED)

    mailbox.put(RunnerCrashed("it died"))

    assert await mailbox.take() == [ONE, REFUSED]
