"""`gemma` as its user meets it: the real daemon, the real runner, the built-in pair."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.fakes.daemon_process import free_port
from tests.fakes.gemma_program import run_gemma

pytestmark = pytest.mark.timeout(240)

QUESTION = "How do I pull a model?"
FIGURES = re.compile(r"^\d+ tokens · [\d.]+ tok/s · first token .+ · drafter: .+$", re.MULTILINE)


def gemma(nano, *args: str):
    """A command that ended well."""
    result = run_gemma(*args, GEMMA_HOME=str(nano.home))
    assert result.returncode == 0, result.stderr
    return result


def test_run_pulls_answers_and_is_warm_the_second_time(nano):
    """From a store without nano to a right answer, its figures, and the same answer at once."""
    gemma(nano, "rm", "nano")
    first = gemma(nano, "run", "nano", QUESTION, "--temperature", "0")
    second = gemma(nano, "run", "nano", QUESTION, "--temperature", "0")

    assert "pulling" in first.stderr
    assert "(loading" in first.stderr
    assert "gemma pull" in first.stdout
    assert second.stdout == first.stdout
    assert FIGURES.fullmatch(second.stderr.strip())
    assert "loading" not in second.stderr


def test_verbose_and_json_tell_of_the_drafter(nano):
    """Rates and draft figures for people and for programs."""
    people = gemma(nano, "run", "nano", QUESTION, "--verbose", "--draft", "3").stderr
    programs = json.loads(gemma(nano, "run", "nano", QUESTION, "--json", "--draft", "off").stdout)

    assert re.search(r"draft depth: +3\b", people)
    assert re.search(r"tokens per round: +\d", people)
    assert programs["response"]
    assert programs["draft"]["drafted"] == 0


def test_list_ps_and_show_know_the_pair(nano):
    """Target and drafter are there, on disk and in memory."""
    gemma(nano, "run", "nano", "hi", "--num-predict", "1")
    listed, shown, loaded = (
        json.loads(gemma(nano, *command, "--json").stdout)
        for command in (("list",), ("show", "nano"), ("ps",))
    )

    assert [model["name"] for model in listed["models"]] == ["nano:latest"]
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["drafter"]["size"] > 0
    assert loaded["models"][0]["drafter"]["loaded"]


def test_a_command_starts_the_real_daemon(own_home: Path):
    """On demand, with a line that says so; the next command finds it."""
    host = f"127.0.0.1:{free_port()}"
    first = run_gemma("list", GEMMA_HOST=host)
    second = run_gemma("list", GEMMA_HOST=host)
    os.kill(int((own_home / "state" / "gemmad.lock").read_text()), signal.SIGTERM)

    assert first.stderr.startswith("Starting the Gemma daemon")
    assert (second.returncode, second.stderr) == (0, "")
