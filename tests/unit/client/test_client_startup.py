"""`gemma --help` is fast because it imports nothing that a command would need."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from gemmacli.completion import scripts
from tests.fakes.fake_daemon import FakeDaemon
from tests.fakes.gemma_program import COMMAND, ROOT, environment

LIMIT_S = 0.1
NOT_FOR_A_COMMAND = {
    "torch": "only a runner computes",
    "aiohttp": "the client speaks HTTP by itself",
    "asyncio": "40 ms; the client does one thing at a time",
    "rich": "100 ms; the client draws its own bar",
    "prompt_toolkit": "100 ms; only a conversation edits lines",
    "platformdirs": "not among the client's dependencies",
    "msgspec": "not among the client's dependencies",
    "importlib.metadata": "25 ms; the version is a constant",
}
NOT_FOR_LIST = NOT_FOR_A_COMMAND | {
    "http.client": "45 ms with the mail parser below it; `gemmacli.http` is enough",
    "email": "20 ms; a daemon's headers are not mail",
    "ssl": "15 ms; the daemon is on this computer",
    "subprocess": "5 ms; only who finds no daemon starts one",
    "gemmacli.benchmark": "5 ms; only a benchmark makes a report",
    "gemmacli.records": "3 ms; only answers have figures",
    "gemmacli.asking": "5 ms; only questions have settings",
}
NOT_FOR_HELP = NOT_FOR_A_COMMAND | {
    "click": "50 ms; the help of the program is a table",
    "http.client": "20 ms; help asks no daemon",
    "ssl": "15 ms; the daemon is on this computer",
    "json": "5 ms; help parses nothing",
    "subprocess": "5 ms; help starts nothing",
    "typing": "5 ms; help needs no types",
    "gemmacli.render": "help has no result",
    "gemmacli.commands.run": "the table of commands stands in for the commands",
}


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], NOT_FOR_HELP),
        (["ps"], NOT_FOR_LIST),
        (["list"], NOT_FOR_LIST | {"click": "40 ms; a list has no options to read"}),
        (["list", "--json"], NOT_FOR_LIST),
        (["run", "-h"], NOT_FOR_A_COMMAND),
    ],
)
def test_nothing_is_imported_that_is_not_needed(
    arguments: list[str], forbidden: dict[str, str], tmp_path: Path
) -> None:
    """The modules of a table stay out of a fresh interpreter, each for the reason beside it."""
    code = (
        "import sys, atexit; from gemmacli.main import main\n"
        "atexit.register(lambda: print(*sys.modules, flush=True)); main()"
    )
    path = tmp_path / "s"
    with FakeDaemon(path):
        run = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env=environment() | {"GEMMA_SOCKET": str(path)},
        )
    loaded = set(run.stdout.splitlines()[-1].split())

    assert "gemmacli.main" in loaded
    assert {name: why for name, why in forbidden.items() if name in loaded} == {}


def test_help_takes_under_a_tenth_of_a_second() -> None:
    """The best of ten: the limit is for the program, not for what else this computer does."""
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run([*COMMAND, "--help"], capture_output=True, env=environment(), check=True)
        best = min(best, time.perf_counter() - start)

    assert best < LIMIT_S


def test_packaged_completions_are_current() -> None:
    """Made by `python -m gemmacli.completion packaging/completions`."""
    folder = ROOT / "packaging" / "completions"

    assert {path.name: path.read_text() for path in folder.iterdir()} == scripts()
