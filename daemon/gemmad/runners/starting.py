"""From nothing to a loaded runner: spawn, shake hands, and leave no process behind on failure."""

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gemmad.api.errors import LoadFailed, RunnerCrashed
from gemmad.runners.handshake import Handshake, OnProgress, RunnerStalled, RunnerWentAway
from gemmad.runners.link import Link
from gemmad.runners.process import ChildProcess, Command, describe_exit
from gemmad.wire import Load, Loaded, WireError


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """What to load, where its log goes, and the name people know it by."""

    load: Load
    log_path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a runner may be silent or slow to leave, in seconds."""

    stall_s: float = 60.0  # without movement in one phase of the load
    ping_every_s: float = 5.0
    ping_missed_s: float = 15.0
    exit_s: float = 1.0  # from closing its channel to being gone by itself
    terminate_s: float = 2.0  # from SIGTERM to SIGKILL


_OUT_OF_MEMORY = (
    "The system kills what takes its last memory: stop other models or use a smaller num_ctx."
)


@dataclass(slots=True)
class Spawned:
    """A child that was given nothing to load yet."""

    child: ChildProcess
    link: Link
    is_greeted: bool = False  # its hello was read

    async def close(self) -> None:
        """The process is dead and nothing of it is open."""
        await _leave_nothing(self.child, self.link)


class Started(NamedTuple):
    """A child that is ready to answer."""

    child: ChildProcess
    link: Link
    loaded: Loaded

    async def close(self) -> None:
        """The process is dead and nothing of it is open."""
        await _leave_nothing(self.child, self.link)


async def spawn(command: Command, log_path: Path) -> Spawned:
    """A process of its own runs `command`; call it from the main thread.

    Raises:
        OSError: the program or the log file could not be opened.
    """
    child = await ChildProcess.spawn(command, log_path)
    return Spawned(child, await Link.open(child.channel))


async def start(
    spec: RunnerSpec,
    *,
    on_progress: OnProgress,
    deadline_s: float,
    command: Command,
    limits: Deadlines,
    spare: Spawned | None = None,
) -> Started:
    """A process of its own has loaded the pair: the spare, where one is given, else a new one.

    Raises:
        LoadFailed: it said why it cannot (or another GemmaError, by its code), or was slow.
        RunnerCrashed: it died while loading.
    """
    try:
        spawned = spare or await spawn(command, spec.log_path)
    except OSError as error:
        raise LoadFailed(f"No runner could be started for {spec.name}: {error}.") from error
    child, link = spawned.child, spawned.link
    handshake = Handshake(link, on_progress, limits.stall_s, is_greeted=spawned.is_greeted)
    try:
        if spare is not None:
            with contextlib.suppress(OSError):  # a log under the spare's name is a log, too
                child.move_log(spec.log_path)
        return Started(child, link, await _within(deadline_s, handshake, spec, child, limits))
    except BaseException:  # also a cancelled start leaves no process behind
        await _leave_nothing(child, link)
        raise


async def _within(
    deadline_s: float,
    handshake: Handshake,
    spec: RunnerSpec,
    child: ChildProcess,
    limits: Deadlines,
) -> Loaded:
    """The handshake under a deadline; its failures translated to errors of the tree."""
    try:
        async with asyncio.timeout(deadline_s):
            return await handshake.run(spec.load)
    except TimeoutError as error:
        why = f"was not ready after {deadline_s:g} s, in phase {handshake.phase!r}"
        raise await _given_up(spec, child, why) from error
    except RunnerStalled as error:
        raise await _given_up(spec, child, str(error)) from error
    except WireError as error:
        raise await _given_up(spec, child, f"broke the protocol ({error})") from error
    except (RunnerWentAway, ConnectionError) as error:
        code = await _exit_code(child, limits.exit_s)
        reason = f"died in phase {handshake.phase!r}"
        raise crashed(spec.name, child, code, reason) from error


async def _given_up(spec: RunnerSpec, child: ChildProcess, why: str) -> LoadFailed:
    child.kill()
    await child.wait()
    return LoadFailed(
        f"The runner of {spec.name} {why}, and was killed.{_last_words(child.log_tail)}",
        fix=f"Its log is {spec.log_path}.",
    )


def crashed(name: str, child: ChildProcess, code: int, reason: str | None) -> RunnerCrashed:
    """The error that tells how the runner of `name` died, with its last log lines."""
    starved = child.was_oom_killed
    how = f"{reason or 'died'} ({describe_exit(code)}{', out of memory' if starved else ''})"
    is_unasked_kill = code == -signal.SIGKILL and reason is None
    return RunnerCrashed(
        f"The runner of {name} {how}.{_last_words(child.log_tail)}",
        fix=_OUT_OF_MEMORY
        if starved or is_unasked_kill
        else "The next request starts a fresh one.",
        exit_code=code,
        log_tail=child.log_tail,
        out_of_memory=starved,
    )


def _last_words(log_tail: tuple[str, ...]) -> str:
    return f" Its last words: {log_tail[-1]}" if log_tail else ""


async def _exit_code(child: ChildProcess, patience_s: float) -> int:
    """The code of a child that closed its channel; killed when it does not leave by itself."""
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(child.wait(), patience_s)
    child.kill()
    return await child.wait()


async def _leave_nothing(child: ChildProcess, link: Link) -> None:
    await link.close()
    await child.close()
