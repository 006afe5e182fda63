"""Hostile names, digests and manifests open nothing outside of the store: audit events tell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.gemma_program import environment
from tests.unit.store.hostile_texts import hostile_texts


def sent(tmp_path: Path, number: int) -> dict:
    """What a process saw that sent so many hostile texts through every door."""
    folder = tmp_path / "scene"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.unit.store.hostile_worker", str(folder), str(number)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def check(report: dict, number: int) -> None:
    assert report["outside"] == []
    assert report["seen"] > 20 * number  # the hook was there
    assert report["left"] == ["canary", "latest.json"]
    assert report["kept"]
    assert "internal" not in report["codes"]


def test_hostile_texts_differ() -> None:
    """A thousand of them are a thousand."""
    assert len({*hostile_texts(1_000)}) == 1_000


def test_some_hostile_texts_open_nothing_outside_of_the_store(tmp_path: Path) -> None:
    """The plain ones, through every method and route."""
    check(sent(tmp_path, 20), 20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_hostile_texts_open_nothing_outside_of_the_store(tmp_path: Path) -> None:
    """All of them, through every method and route."""
    report = sent(tmp_path, 1_000)
    print({**report, "outside": len(report["outside"])})
    check(report, 1_000)
