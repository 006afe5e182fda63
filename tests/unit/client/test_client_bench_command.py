"""`gemma bench` asks the daemon fairly and reports what it measured."""

import json
from pathlib import Path

import pytest

from gemmacli.bench_prompts import PROMPTS
from tests.fakes.fake_daemon import FakeDaemon
from tests.unit.client.conftest import Gemma


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    """A file with two prompts."""
    path = tmp_path / "prompts.txt"
    path.write_text("# two\none question\n\nanother longer question\n")
    return str(path)


def test_bench_json_has_ratio_acceptance_and_identity(
    gemma: Gemma, daemon: FakeDaemon, prompts: str
) -> None:
    """The fake drafts twice as fast as it answers alone."""
    result = gemma("bench", "nano", "--prompts", prompts, "--repeats", "2", "--json")
    report = json.loads(result.stdout)

    assert report["ratio"] == pytest.approx(2.0)
    assert (report["ratio_min"], report["ratio_max"]) == pytest.approx((2.0, 2.0))
    assert report["identical"] is True
    assert report["off"]["tokens_per_second"] == pytest.approx(100)
    assert report["auto"]["tokens_per_second"] == pytest.approx(200)
    assert report["per_position"] == pytest.approx([0.9, 0.8])
    assert (report["prompts"], report["repeats"], report["drafted"]) == (2, 2, 32)


def test_bench_is_greedy_and_warms_up(gemma: Gemma, daemon: FakeDaemon, prompts: str) -> None:
    """One round of both modes is not counted; both modes get the same options."""
    gemma("bench", "nano", "--prompts", prompts, "--repeats", "1", "--num-predict", "7")
    asked = daemon.asked

    assert len(asked) == 2 * 2 * 2
    assert {json.dumps(body["options"]) for body in asked} == {
        '{"temperature": 0, "num_predict": 7}'
    }
    assert [body["draft"] for body in asked[:4]] == ["off", "auto", "auto", "off"]


def test_bench_names_the_prompts_that_differ(
    gemma: Gemma, daemon: FakeDaemon, prompts: str
) -> None:
    """A drafter that changes the answer is found out."""
    daemon.state.hostile_drafter = True
    result = gemma("bench", "nano", "--prompts", prompts, "--repeats", "1")

    assert "NO, 2 prompts differ" in result.stdout
    assert "differs: another longer question" in result.stdout


def test_bench_has_prompts_of_its_own(gemma: Gemma, daemon: FakeDaemon) -> None:
    """A dozen, all different."""
    result = gemma("bench", "nano", "--repeats", "1", "--draft", "4")

    assert "nano: 12 prompts, greedy, at most 128 tokens\n" in result.stdout
    assert "draft 4" in result.stdout
    assert len(set(PROMPTS)) == 12


def test_bench_refuses_to_compare_nothing(gemma: Gemma, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Off with off, or no prompts."""
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")

    assert gemma("bench", "nano", "--draft", "off").exit_code == 2
    assert gemma("bench", "nano", "--prompts", str(empty)).exit_code == 2
