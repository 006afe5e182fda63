"""A spawned child: its command, its scrubbed environment, its log, and the verbs that end it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gemmad.memory import oom
from gemmad.runners.logfile import CappedLog

Command = Callable[[int], Sequence[str]]  # inherited descriptor -> argument list

_PACKAGES = str(Path(__file__).resolve().parents[2])  # where the child finds ours
LOG_DRAIN_S = 1.0  # a grandchild may hold the log open after the child is gone
_LOG_CHUNK_BYTES = 65536

_PASSED = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ"),
        *("TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "XDG_CACHE_HOME", "TRITON_CACHE_DIR"),
        *("PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    )
)
_PASSED_PREFIXES = (
    *("LC_", "OMP_", "MKL_", "KMP_", "GOMP_", "OPENBLAS_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_"),
    *("CUDA_", "CUBLAS_", "NVIDIA_", "HIP_", "ROCR_", "HSA_"),
)
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "_KEY", "PROXY")
_FIXED = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts: `cuda:1` is one GPU here and there
}


def runner_command(fd: int) -> Sequence[str]:
    """How the real runner is started; `-P` keeps the working directory off its import path."""
    return (sys.executable, "-P", "-m", "gemmarunner", "--fd", str(fd))


def scrubbed_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The part of `env` a runner needs to find its packages and devices; no secret, no proxy."""
    kept = {name: value for name, value in env.items() if _is_passed(name)}
    given = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    paths = [_PACKAGES, *map(os.path.abspath, given)]  # the child's working directory is another
    return kept | _FIXED | {"PYTHONPATH": os.pathsep.join(paths)}


def _is_passed(name: str) -> bool:
    if any(word in name.upper() for word in _SECRET_WORDS):
        return False
    return name in _PASSED or name.startswith(_PASSED_PREFIXES)


def describe_exit(code: int) -> str:
    """An exit code as a person reads it: `exit code 3`, `killed by SIGSEGV`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class ChildProcess:
    """A child in a process group of its own, with our end of the socket pair it inherited."""

    def __init__(
        self, process: asyncio.subprocess.Process, channel: socket.socket, output: "Output"
    ) -> None:
        self.channel = channel
        self._process = process
        self._output = output
        self._oom_kills = oom.kills()  # before its life
        self._is_killed = False  # by us

    @classmethod
    async def spawn(cls, command: Command, log_path: Path) -> "ChildProcess":
        """A new process runs `command`; call it from the main thread.

        Linux ties the child's life to the *thread* that spawned it, so a pool's thread will not do.

        Raises:
            OSError: the program or the log file could not be opened.
        """
        output = Output(CappedLog(log_path))
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *command(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.inlet,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=scrubbed_environment(os.environ),
                cwd="/",
                process_group=0,
            )
        except BaseException:
            ours.close()
            output.close()
            raise
        finally:
            theirs.close()
            output.close_inlet()
        return cls(process, ours, output)

    @property
    def pid(self) -> int:
        """The process id; also the id of its group."""
        return self._process.pid

    @property
    def log_tail(self) -> tuple[str, ...]:
        """The last lines the child printed, oldest first."""
        return self._output.tail

    @property
    def was_oom_killed(self) -> bool:
        """The system killed it, and has killed for want of memory while it lived."""
        killed = self._process.returncode == -signal.SIGKILL and not self._is_killed
        return killed and oom.kills() > self._oom_kills

    def move_log(self, path: Path) -> None:
        """What the child has printed and will print is in the file `path`.

        Raises:
            OSError: the log stays where it was.
        """
        self._output.move_log(path)

    def terminate(self) -> None:
        """The child's group was asked to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """The child's group ends without being asked (SIGKILL)."""
        self._is_killed |= self._process.returncode is None
        self._signal(signal.SIGKILL)

    async def wait(self) -> int:
        """The exit code, negative for a signal, once the child is gone and its log is read."""
        code = await self._process.wait()
        await asyncio.wait({self._output.ended}, timeout=LOG_DRAIN_S)
        return code

    async def close(self) -> None:
        """The child is dead and nothing of it is open here."""
        self.kill()
        await self.wait()
        self.channel.close()
        self._output.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is not None:
            return  # the number may already belong to another group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


class Output:
    """A pipe from a child's standard output to a log.

    It is not asyncio's own, whose `wait` does not return while a grandchild holds the pipe open.
    """

    def __init__(self, log: CappedLog) -> None:
        self.ended: asyncio.Future[None] = asyncio.Future()  # everyone closed the inlet
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._outlet, self.inlet = os.pipe()
        os.set_blocking(self._outlet, False)
        self._loop.add_reader(self._outlet, self._read)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return self._log.tail

    def move_log(self, path: Path) -> None:
        """The log's file is `path` from here on.

        Raises:
            OSError: it stays where it was.
        """
        self._log.move(path)

    def close_inlet(self) -> None:
        """Only the child writes from here on."""
        os.close(self.inlet)

    def close(self) -> None:
        """Nothing more is read; the tail stays."""
        self._end()
        os.close(self._outlet)
        self._log.close()

    def _read(self) -> None:
        if data := os.read(self._outlet, _LOG_CHUNK_BYTES):
            self._log.write(data)
        else:
            self._end()

    def _end(self) -> None:
        self._loop.remove_reader(self._outlet)
        if not self.ended.done():
            self.ended.set_result(None)
