"""What every test gets: a home of its own, no network variables, one torch thread."""

import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_LOCAL = ("127.0.0.1", "::1", "localhost")
_TOGETHER = "tests/system/test_nano_"  # these share a daemon and its runner, which is slow to load


def pytest_configure(config: pytest.Config) -> None:
    """Triton's own library is interpreted only if it was told so before its first import.

    Torch imports it for transformers, long before a kernel's test does. Tests of a GPU compile.
    """
    compiled = config.option.markexpr == "gpu" or any("tests/gpu" in arg for arg in config.args)
    if not compiled:
        os.environ["TRITON_INTERPRET"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Single tests go to whichever worker is free; those of `_TOGETHER` all go to one.

    NOTE: this is what `--dist loadgroup` would do; pytest-xdist 3.8's does not with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _TOGETHER if nodeid.startswith(_TOGETHER) else nodeid

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every path the program would use lies under the test's own directory."""
    home = tmp_path / "home"
    for name in [name for name in os.environ if name.startswith("GEMMA")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GEMMA_HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return home


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that dials another machine fails; tests need no network."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert isinstance(address, tuple)
            assert address[0] in _LOCAL, f"a test dialled {address[0]}"
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
