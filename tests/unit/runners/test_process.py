"""Children: what they are given, what is kept of their output, and that none survives."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gemmad.runners.logfile import CappedLog
from gemmad.runners.process import ChildProcess, describe_exit, runner_command, scrubbed_environment
from tests.fakes import fake_runner

ROOT = Path(__file__).parents[3]
GONE_S = 2.0  # what the design promises after the daemon's SIGKILL

PARENT = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {daemon!r}]
from gemmad.runners.process import ChildProcess
from tests.fakes.fake_runner import fake_command

async def main():
    child = await ChildProcess.spawn(fake_command(deaf=True, ignore_sigterm=True), Path({log!r}))
    child.channel.setblocking(True)
    child.channel.recv(1)  # its hello: it has hardened itself
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def python(code: str) -> "tuple[str, ...]":
    """A command that runs `code` in a fresh interpreter."""
    return (sys.executable, "-c", code)


async def output_of(code: str, tmp_path: Path) -> tuple[int, tuple[str, ...]]:
    """Exit code and last lines of a child that runs `code`."""
    child = await ChildProcess.spawn(lambda fd: python(code), tmp_path / "log")
    try:
        return await child.wait(), child.log_tail
    finally:
        await child.close()


def test_environment_keeps_devices_and_drops_secrets() -> None:
    """Only what a runner needs is passed; no token, key or proxy, however it is named."""
    given = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "1",
        "HF_TOKEN": "x",
        "OPENAI_API_KEY": "x",
        "CUDA_SECRET": "x",
        "https_proxy": "x",
        "GEMMA_HOME": "x",
        "LD_PRELOAD": "x",
    }

    kept = scrubbed_environment(given)

    assert given.keys() & kept.keys() == {
        *("PATH", "HOME", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    }
    assert kept["HF_HUB_OFFLINE"] == kept["TRANSFORMERS_OFFLINE"] == "1"
    assert kept["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # GPUs are numbered as the probe numbers them


def test_child_finds_the_packages_from_any_directory() -> None:
    """Our own package and the parent's import paths are absolute in the child."""
    paths = scrubbed_environment({"PYTHONPATH": "daemon:/x"})["PYTHONPATH"].split(":")

    assert paths == [str(ROOT / "daemon"), str(Path("daemon").absolute()), "/x"]


def test_runner_command_keeps_the_working_directory_off_the_import_path() -> None:
    """`-P`: a file torch.py beside the daemon's start is not imported."""
    assert list(runner_command(5))[1:] == ["-P", "-m", "gemmarunner", "--fd", "5"]


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-11, "killed by SIGSEGV"),
        (-99, "killed by signal 99"),
    ],
)
def test_exit_is_described(code: int, text: str) -> None:
    """A signal has its name."""
    assert describe_exit(code) == text


async def test_child_has_its_own_group_and_directory(tmp_path: Path) -> None:
    """A Ctrl-C at the daemon's terminal is not the child's; its directory pins no volume."""
    code, tail = await output_of(
        "import os; print(os.getpid() == os.getpgid(0), os.getcwd())", tmp_path
    )

    assert (code, tail) == (0, ("True /",))


async def test_output_is_kept_to_its_last_lines(tmp_path: Path) -> None:
    """Twenty lines in memory, the rest on disk."""
    code, tail = await output_of("for i in range(50): print('line', i)\nexit(4)", tmp_path)

    assert code == 4
    assert tail == tuple(f"line {i}" for i in range(30, 50))
    assert (tmp_path / "log").read_text().startswith("line 0\n")


async def test_flood_of_output_fills_no_disk(tmp_path: Path) -> None:
    """A child that prints without end leaves two files of bounded size."""
    code = "import sys\nfor _ in range(60): sys.stdout.write('x' * 65536)"

    _, tail = await output_of(code, tmp_path)

    sizes = [entry.stat().st_size for entry in os.scandir(tmp_path) if entry.is_file()]
    assert len(sizes) == 2
    assert max(sizes) <= 1024 * 1024
    assert max(map(len, tail)) <= 2000


async def test_missing_program_leaves_nothing_open(tmp_path: Path) -> None:
    """A command that cannot be started is an OSError, without a leaked descriptor."""
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()

    with pytest.raises(OSError, match="no-such-program"):
        await ChildProcess.spawn(lambda fd: ("/no-such-program",), tmp_path / "log")

    after = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    assert len(after) == len(before)


def test_log_is_cut_at_its_cap_and_keeps_its_tail(tmp_path: Path) -> None:
    """The full file moves aside once; lines that were cut in two are one line in the tail."""
    log = CappedLog(tmp_path / "log", max_bytes=10)
    for part in (b"one\ntw", b"o\n", b"\nthree\n\xff"):
        log.write(part)
    log.close()

    assert log.tail == ("one", "two", "three", "\ufffd")
    assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "log").read_bytes() == b"\nthree\n\xff"


@pytest.mark.skipif(sys.platform != "linux", reason="needs PDEATHSIG")
def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL of the daemon leaves no runner after two seconds, not even a deaf one."""
    code = PARENT.format(root=str(ROOT), daemon=str(ROOT / "daemon"), log=str(tmp_path / "log"))
    with subprocess.Popen(python(code), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        death = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        gone = select.poll()
        gone.register(death, select.POLLIN)

        assert gone.poll(GONE_S * 1000)
    os.close(death)


@pytest.mark.parametrize("stuck", ["while True: pass", "time.sleep(60)"])
def test_closed_channel_ends_a_stuck_runner(stuck: str) -> None:
    """End of file on the channel ends the process although its main thread never looks."""
    ours, theirs = fake_runner.socket.socketpair()
    code = (
        f"import sys, socket, time; sys.path[:0] = [{str(ROOT / 'daemon')!r}]\n"
        "from gemmarunner.harden import exit_when_peer_closes\n"
        f"channel = socket.socket(fileno={theirs.fileno()})\n"
        "exit_when_peer_closes(channel); channel.send(b'!')\n" + stuck
    )
    with subprocess.Popen(python(code), pass_fds=(theirs.fileno(),)) as child:
        theirs.close()
        assert ours.recv(1) == b"!"
        ours.close()

        assert child.wait(GONE_S + 10) == 76


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_hardened_child_gave_up_its_rights() -> None:
    """No new privileges, no core file, first in line when memory runs out."""
    code = (
        f"import json, resource, sys; sys.path[:0] = [{str(ROOT / 'daemon')!r}]\n"
        "import socket; from gemmarunner.harden import harden\n"
        "a, b = socket.socketpair(); harden(a)\n"
        "status = dict(l.split(':\\t') for l in open('/proc/self/status').read().splitlines())\n"
        "print(json.dumps([status['NoNewPrivs'], resource.getrlimit(resource.RLIMIT_CORE),"
        " open('/proc/self/oom_score_adj').read()]))"
    )

    answer = subprocess.run(python(code), capture_output=True, text=True, check=True)

    assert json.loads(answer.stdout) == ["1", [0, 0], "800\n"]


async def test_wait_outlives_a_grandchild_that_holds_the_log(tmp_path: Path) -> None:
    """The exit code comes although someone else still has the log open."""
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(5)'])\nprint('left')"
    )

    async with asyncio.timeout(4):
        assert await output_of(code, tmp_path) == (0, ("left",))
