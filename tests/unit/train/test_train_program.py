"""The one command goes through all its phases and leaves a pair that loads."""

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from tests.unit.train.train_fakes import write_inputs
from train.__main__ import arguments, plan
from train.clock import Clock
from train.export import join_parts
from train.program import run


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """The machine is shared."""
    torch.set_num_threads(1)


def options(tmp_path: Path, *more: str) -> tuple[Namespace, Path]:
    """Return a tiny run's options on the fake inputs, and its tokenizer."""
    home, corpus = write_inputs(tmp_path)
    fake = "tests.unit.train.train_fakes"
    line = ["--out", str(tmp_path / "out"), "--general", str(corpus), "--tiny", "--device", "cpu"]
    line += ["--sampler", f"{fake}:sample", "--skills", fake, "--no-compile", *more]
    return arguments(line), home


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_command_makes_measures_and_carries_a_pair(tmp_path: Path) -> None:
    """Every phase runs; the carried parts join to the same files; the report has every table."""
    asked, home = options(tmp_path)
    report = run(plan(asked, home), Clock(300.0)).values
    join_parts(tmp_path / "out/transport", tmp_path / "joined")
    for name in ("target/model.safetensors", "drafter/model.safetensors", "README.md"):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    written = json.loads((tmp_path / "out/transport/report.json").read_text())

    assert written["evaluation"]["skills"]["values"]["greedy"]["echo"]["asked"] == 2
    assert len(written["acceptance"]["values"]["greedy"]["all"]["conditional"]) == 6
    assert report["target"]["steps"] == 12
    assert report["drafter"]["steps"] == 6
    assert "=== echo / values / greedy" in (tmp_path / "out/samples.txt").read_text()
