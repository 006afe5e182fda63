"""What a runner does to itself at start: it dies with its parent, and gives up what it never needs.

Everything here is best effort and does nothing where the system has no such thing; what the daemon
relies on everywhere is that a closed channel ends the process.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path

EXIT_ORPHANED = 76  # the daemon is gone; nobody reads this but a person looking at a log

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_OOM_SCORE_ADJ = 800  # a runner goes before the daemon: it costs one model, not the service
_POLL_MS = 500


def harden(channel: socket.socket) -> None:
    """After this the process ends when its parent or `channel` ends, and can gain no rights."""
    exit_when_peer_closes(channel)
    dump_no_core()
    if sys.platform == "linux":
        die_with_parent()
        prefer_as_oom_victim()
        gain_no_privileges()


def die_with_parent() -> None:
    """The kernel kills this process when the thread that spawned it ends (Linux)."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew that we care
        os._exit(EXIT_ORPHANED)


def gain_no_privileges() -> None:
    """No set-uid program gives rights from here on, and no other process may read our memory."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def prefer_as_oom_victim() -> None:
    """When memory runs out, the kernel takes this process before the daemon."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))


def dump_no_core() -> None:
    """A crash writes no core file: it would hold the user's conversations, and gigabytes."""
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def exit_when_peer_closes(channel: socket.socket) -> threading.Thread:
    """A watcher is running that ends the process at end of file, whatever the other threads do.

    It never reads, so it competes with nobody for the bytes. It also notices a changed parent,
    for systems whose poll does not report the hang-up of a socket pair.
    """
    thread = threading.Thread(target=_watch, args=(channel,), name="peer-watch", daemon=True)
    thread.start()
    return thread


def _watch(channel: socket.socket) -> None:
    parent = os.getppid()
    poller = select.poll()
    poller.register(channel, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
    while not poller.poll(_POLL_MS) and os.getppid() == parent:
        pass
    os._exit(EXIT_ORPHANED)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0)
