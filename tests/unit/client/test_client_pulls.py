"""Pulls: what is asked for, what is said of them, and how they are left and ended."""

import json

import pytest

from gemmacli.summary import stored_name
from tests.fakes.fake_daemon import FakeDaemon
from tests.fakes.fake_store_routes import fetched
from tests.unit.client.conftest import Gemma

JOB = {
    "name": "gemma4:e4b",
    "state": "pulling",
    "total": 16_000_000_000,
    "completed": 4_000_000_000,
    "started_at": "2026-11-23T11:00:00Z",
    "clients": 0,
    "detached": True,
}


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        ("nano", {}),
        ("nano --no-draft", {"draft": "none"}),
        ("nano --draft hf.co/me/d", {"draft": "hf.co/me/d"}),
        ("nano --quantize int4 --draft-quantize none", {"quantize": "int4"}),
        ("nano --detach", {"detach": True}),
    ],
)
def test_a_pull_sends_what_was_asked_for(
    gemma: Gemma, daemon: FakeDaemon, line: str, sent: dict
) -> None:
    """In the request's own names."""
    assert gemma("pull", *line.split()).exit_code == 0
    body = daemon.sent("/api/pull")[0]
    if "quantize" in sent:
        assert body.pop("draft_quantize") == "none"

    assert body == {"model": "nano", "stream": True, **sent}


def test_a_drafter_cannot_be_named_and_refused(gemma: Gemma, daemon: FakeDaemon) -> None:
    """It is a usage error; nothing is sent."""
    assert gemma("pull", "nano", "--draft", "x", "--no-draft").exit_code == 2
    assert daemon.sent("/api/pull") == []


def test_a_pull_ends_with_the_drafter_and_the_notes(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Also when there is none, and why."""
    daemon.state.notes = ["No drafter: the hidden sizes differ (256 and 1536)."]
    lines = gemma("pull", "nano", "--no-draft").stderr.splitlines()

    assert lines[-2:] == [
        "No drafter: answers come from the target alone.",
        "Note: No drafter: the hidden sizes differ (256 and 1536).",
    ]


def test_a_detached_pull_says_how_to_follow(gemma: Gemma, daemon: FakeDaemon) -> None:
    """It returns once bytes come; what fails before is an error of the command."""
    result = gemma("pull", "nano", "--detach")

    assert result.stdout == "nano is being pulled. Follow it with: gemma pulls\n"
    assert json.loads(gemma("pull", "nano", "--detach", "--json").stdout)["state"] == "pulling"
    assert gemma("pull", "other", "--detach").exit_code == 1


def test_a_detached_pull_of_what_is_here_says_that_it_is_done(
    gemma: Gemma, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was missing: there is nothing to follow."""
    here = [record for record in fetched() if record.get("completed") == record.get("total")]
    monkeypatch.setattr("tests.fakes.fake_store_routes.fetched", lambda: here)

    assert gemma("pull", "nano", "--detach").stdout == "nano is in the store.\n"
    assert json.loads(gemma("pull", "nano", "--detach", "--json").stdout)["state"] == "done"


def test_an_interrupted_pull_says_how_to_go_on(
    gemma: Gemma, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that what came is kept."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gemmacli.progress.PhaseScreen.show", interrupt)
    result = gemma("pull", "nano")

    assert result.exit_code == 130
    assert "10 s" in result.stderr
    assert "Go on with: gemma pull nano" in result.stderr


def test_pulls_are_listed_and_cancelled(gemma: Gemma, daemon: FakeDaemon) -> None:
    """A pull that does not run cannot be cancelled."""
    daemon.state.jobs = {"gemma4:e4b": JOB}
    head, row = gemma("pulls").stdout.splitlines()

    assert head.split() == ["NAME", "STATE", "DONE", "SIZE", "STARTED", "WATCHED", "BY"]
    assert row.split()[:5] == ["gemma4:e4b", "pulling", "25%", "16", "GB"]
    assert row.endswith("nobody (detached)")
    assert json.loads(gemma("pulls", "--json").stdout) == {"pulls": [JOB]}
    assert gemma("pulls", "cancel", "gemma4:e4b").stdout == "cancelled the pull of 'gemma4:e4b'\n"
    assert gemma("pulls", "cancel", "gemma4:e4b").exit_code == 1


@pytest.mark.usefixtures("socket_file")
def test_pulls_without_a_daemon_are_none(gemma: Gemma) -> None:
    """It starts none."""
    result = gemma("pulls")

    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "No daemon is running" in result.stderr


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("nano", "nano"),
        ("gemma4:e4b", "gemma4:e4b"),
        ("https://huggingface.co/a/b@main", "hf.co/a/b"),
        ("hf.co/a/b:q/x-Q4_0.gguf@v1", "hf.co/a/b:x-Q4_0.gguf"),
        ("kaggle:google/gemma-4/transformers/e4b/2", "kaggle/gemma-4:e4b-2"),
        ("ollama:gemma4:e2b", "gemma4:e2b"),
    ],
)
def test_what_was_pulled_has_this_name(typed: str, name: str) -> None:
    """As the daemon calls it."""
    assert stored_name(typed) == name


def test_a_drafter_is_attached_and_detached(gemma: Gemma, daemon: FakeDaemon) -> None:
    """What does not belong to the target is refused, in a line."""
    told = gemma("draft", "set", "nano", "hf.co/me/d").stderr

    assert told.endswith("Drafter: 1.9M, 3.8 MB, from hf.co/me/d@666666666666\n")
    assert gemma("draft", "rm", "nano").stdout == "'nano' has no drafter now\n"
    assert daemon.state.models["nano:latest"]["drafter"] is None
    refused = gemma("draft", "set", "nano", "hf.co/me/other")
    assert refused.exit_code == 1
    assert "hidden size 256, not 1536" in refused.stderr.splitlines()[-1]


def test_offers_are_listed_and_found(gemma: Gemma, daemon: FakeDaemon) -> None:
    """With sizes, whether they fit, and whether they are here."""
    head, small, large = gemma("list", "--available").stdout.splitlines()

    assert head.split() == ["NAME", "SIZE", "DRAFTER", "FITS", "INSTALLED"]
    assert small.split() == ["gemma4:e4b", "16", "GB", "157", "MB", "CPU"]
    assert "no, needs 64 GB" in large
    assert gemma("list", "--available", "e4").stdout.splitlines()[1:] == [small]
    found = json.loads(gemma("search", "e4b", "--json").stdout)["models"]
    assert [model["name"] for model in found] == ["gemma4:e4b", "hf.co/google/gemma-4-E4B-it"]


def test_a_search_without_the_hub_shows_the_catalogue(gemma: Gemma, daemon: FakeDaemon) -> None:
    """And says that the hub did not answer."""
    daemon.state.hub_is_down = True
    result = gemma("search", "e4b")

    assert result.exit_code == 0
    assert result.stdout.count("\n") == 2
    assert "The hub could not be searched" in result.stderr
    assert gemma("search").stderr == ""
