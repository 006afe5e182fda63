"""Each command does what its help says, with answers on stdout and all else on stderr."""

import json
from pathlib import Path

import pytest

from gemmacli import commands
from gemmacli.catalogue import ALIASES, COMMANDS, program_help
from tests.fakes.fake_daemon import FakeDaemon
from tests.unit.client.conftest import Gemma


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_help_of_a_command_begins_with_its_line_in_the_table(gemma: Gemma, name: str) -> None:
    """The table, which is all that --help reads, is true."""
    result = gemma(name, "--help")

    assert result.exit_code == 0
    assert COMMANDS[ALIASES.get(name, name)] in result.stdout


def test_help_command_shows_the_same_as_the_option(gemma: Gemma) -> None:
    """Of the program and of a command."""
    assert gemma("--help").stdout == program_help()
    assert gemma("help").stdout == gemma("--help").stdout
    assert gemma("help", "run").stdout == gemma("run", "--help").stdout
    assert gemma("help", "rum").exit_code == 2


def test_an_unknown_command_is_a_usage_error(gemma: Gemma) -> None:
    """With the nearest name."""
    result = gemma("pul")

    assert result.exit_code == 2
    assert "pull" in result.stderr


def test_run_answers_on_stdout_and_measures_on_stderr(gemma: Gemma, daemon: FakeDaemon) -> None:
    """One line of figures, the last one."""
    result = gemma("run", "nano", "how", "are", "you?")

    assert (result.exit_code, result.stdout) == (0, "echo: how are you?\n")
    assert result.stderr.startswith("4 tokens · 200 tok/s · first token ")
    assert result.stderr.endswith("drafter: depth 4, 75% accepted, 2.0 tokens per round\n")
    assert result.stderr.count("\n") == 1


def test_run_puts_piped_text_before_the_prompt(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Or takes it as the prompt."""
    gemma("run", "nano", "Summarise.", stdin="A text.\n")
    gemma("run", "nano", stdin="A question?\n")

    assert [body["prompt"] for body in daemon.asked] == ["A text.\n\nSummarise.", "A question?"]


def test_run_sends_every_option(gemma: Gemma, daemon: FakeDaemon) -> None:
    """In the request's own names and types."""
    line = (
        "run nano hi --system S --no-think --draft 3 --keepalive 10m --temperature 0 --top-k 5 "
        "--top-p 0.5 --min-p 0.1 --seed 7 --num-ctx 512 --num-predict 9 --stop A --stop B --raw "
        "--quantize int8 --deterministic"
    )
    assert gemma(*line.split()).exit_code == 0

    assert daemon.asked[0] == {
        "model": "nano",
        "prompt": "hi",
        "system": "S",
        "think": False,
        "draft": 3,
        "keep_alive": "10m",
        "raw": True,
        "stream": True,
        "options": {
            "temperature": 0,
            "top_k": 5,
            "top_p": 0.5,
            "min_p": 0.1,
            "seed": 7,
            "num_ctx": 512,
            "num_predict": 9,
            "quantize": "int8",
            "deterministic": True,
            "stop": ["A", "B"],
        },
    }


def test_run_frames_thinking_on_stderr(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Or hides it; the answer is the same."""
    shown = gemma("run", "nano", "hi", "--think", "-q")
    hidden = gemma("run", "nano", "hi", "--think", "-q", "--hidethinking")

    assert shown.stderr == "Thinking...\nHm, let me see.\n...done thinking.\n\n"
    assert hidden.stderr == ""
    assert shown.stdout == hidden.stdout == "echo: hi\n"


def test_run_json_is_one_object(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Answer and figures, and nothing on stderr."""
    result = gemma("run", "nano", "hi", "--json", "--think")
    answer = json.loads(result.stdout)

    assert result.stderr == ""
    assert (answer["response"], answer["thinking"]) == ("echo: hi", "Hm, let me see.")
    assert answer["tokens_per_second"] == pytest.approx(200)
    assert answer["draft"]["accepted"] == 6


def test_run_verbose_prints_the_table(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Every figure, by name."""
    result = gemma("run", "nano", "hi", "--verbose")

    assert "eval rate:            200.00 tokens/s" in result.stderr
    assert "draft by position:    90% 80%" in result.stderr


def test_run_without_any_prompt_loads_the_model(gemma: Gemma, daemon: FakeDaemon) -> None:
    """As Ollama does; nothing is printed."""
    result = gemma("run", "nano")

    assert (result.exit_code, result.output) == (0, "")
    assert "nano:latest" in daemon.state.loaded


def test_run_pulls_a_missing_model(gemma: Gemma, socket_file: Path) -> None:
    """With its progress on stderr, a line a phase."""
    with FakeDaemon(socket_file, models=()):
        result = gemma("run", "nano", "hi", "-q")

    assert result.stdout == "echo: hi\n"
    assert "pulling 3f2a9c0d11e2 (target, 27 MB, 1.0 MB already here)\n" in result.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run nano hi --format json", "format: structured output is not supported yet."),
        ("run other hi", "There is no model 'other' to pull."),
        ("run nano fail please", "The runner died."),
        ("show other", "gemma pull other"),
        ("run nano hi --format {x", "not JSON"),
    ],
)
def test_the_daemons_errors_are_one_line(
    gemma: Gemma, daemon: FakeDaemon, line: str, says: str
) -> None:
    """On stderr, after `Error:`, with exit code 1."""
    result = gemma(*line.split())

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert says in result.stderr


def test_pull_reports_phases_or_json_lines(gemma: Gemma, daemon: FakeDaemon) -> None:
    """The records themselves, for scripts; else what drafter came, at the end."""
    assert gemma("pull", "nano").stderr.splitlines()[-2:] == [
        "success",
        "Drafter: 1.9M, 3.8 MB, from hf.co/me/nano-assistant@555555555555",
    ]
    records = [json.loads(line) for line in gemma("pull", "nano", "--json").stdout.splitlines()]
    assert records[0] == {"status": "pulling manifest"}
    assert records[-1] == {"status": "success"}


def test_list_shows_size_and_drafter(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Also as `ls`; a prefix narrows it."""
    head, row = gemma("ls").stdout.splitlines()

    assert head.split() == ["NAME", "ID", "SIZE", "DRAFTER", "MODIFIED"]
    assert row.split()[:6] == ["nano:latest", "3f2a9c0d11e2", "31", "MB", "3.8", "MB"]
    assert json.loads(gemma("list", "x", "--json").stdout) == {"models": []}


def test_ps_shows_what_is_loaded(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Both halves apart, context and the time it stays."""
    gemma("run", "nano")
    head, row = gemma("ps").stdout.splitlines()

    assert head.split()[:5] == ["NAME", "ID", "SIZE", "TARGET", "DRAFTER"]
    assert "27 MB cpu    3.8 MB cpu" in row
    assert row.split()[-2:] == ["4096", "Forever"]
    assert json.loads(gemma("ps", "--json").stdout)["models"][0]["context_length"] == 4096


def test_ps_shows_memory_and_who_waits(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Below the table; reasons are on stderr."""
    daemon.state.seen = {
        "budgets": [{"id": "cpu", "total": 100, "free": 60, "ours": {"target": 30}, "notes": []}],
        "queue": [{"model": "gemma4:e4b", "priority": "batch", "waiting_s": 2.5}],
        "notes": ["swap is in use"],
    }

    shown = gemma("ps")

    assert "cpu  [############::::" in shown.stdout
    assert "Waiting: gemma4:e4b (batch, 2.50 s)" in shown.stdout
    assert shown.stderr == "swap is in use\n"


def test_doctor_shows_the_machine(gemma: Gemma, daemon: FakeDaemon) -> None:
    """Devices, memory, software, what fits and why not."""
    text = gemma("doctor").stdout

    assert "rocm-unused:0    RX 7900     not used: no ROCm build" in text
    assert "6.4 GB of 26 GB free" in text
    assert "native kernels for avx2" in text
    assert "broken: old:latest" in text
    assert "gemma4:31b    takes 75 GB    no          it needs 70 GiB" in text


def test_doctor_hands_a_script_to_the_daemon(
    gemma: Gemma, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The daemon plays it; what is no JSON is refused here."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text('{"readings": []}')
    bad.write_text("{")

    shown = gemma("doctor", "--simulate", str(good))
    refused = gemma("doctor", "--simulate", str(bad))

    assert "Devices (simulated)" in shown.stdout
    assert daemon.sent("/api/doctor") == [{"script": {"readings": []}}]
    assert (refused.exit_code, "is not JSON" in refused.stderr) == (1, True)


@pytest.mark.usefixtures("socket_file")
def test_ps_without_a_daemon_is_empty(gemma: Gemma) -> None:
    """It starts none."""
    result = gemma("ps")

    assert result.exit_code == 0
    assert result.stdout.startswith("NAME")
    assert result.stderr == "No daemon is running, so no model is loaded.\n"
    assert json.loads(gemma("ps", "--json").stdout) == {"models": []}


def test_show_prints_a_card_or_one_part(gemma: Gemma, daemon: FakeDaemon) -> None:
    """The drafter is on the card; a part is verbatim."""
    card = gemma("show", "nano").stdout

    assert "  Drafter\n    parameters    1.9M\n    size          3.8 MB\n" in card
    assert "    from          hf.co/me/nano-assistant@555555555555\n" in card
    assert "    line 3\n    ..." in card
    assert gemma("show", "nano", "--system").stdout == "You are nano.\n"
    assert "line 4" in gemma("show", "nano", "-v").stdout
    assert json.loads(gemma("show", "nano", "--json").stdout)["system"] == "You are nano."
    assert gemma("show", "nano", "--system", "--license").exit_code == 2


def test_cp_rm_and_stop_say_what_they_did(gemma: Gemma, daemon: FakeDaemon) -> None:
    """And the daemon has done it."""
    assert gemma("cp", "nano", "mine").stdout == "copied 'nano' to 'mine'\n"
    gemma("run", "nano")
    assert gemma("stop", "nano").stdout == "unloaded 'nano'\n"
    assert daemon.state.loaded == {}
    assert gemma("rm", "mine", "nano").stdout == "deleted 'mine'\ndeleted 'nano'\n"
    assert daemon.state.models == {}


def test_version_names_both_programs(gemma: Gemma, socket_file: Path) -> None:
    """And warns when they differ; no daemon is started to ask."""
    assert gemma("--version").stdout == "gemma 0.1.0 (no daemon running)\n"
    with FakeDaemon(socket_file, version="9.9.9"):
        result = gemma("--version")

    assert result.stdout == "gemma 0.1.0 (daemon 9.9.9)\n"
    assert result.stderr.count("Warning") == 1


def test_an_interrupt_is_130_and_hangs_up(
    gemma: Gemma, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it stays on the screen."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gemmacli.printer.AnswerPrinter.show", interrupt)
    result = gemma("run", "nano", "forever")

    assert result.exit_code == 130
    assert daemon.state.left.wait(5)
    assert "Traceback" not in result.output


def test_every_command_is_reachable_under_its_name() -> None:
    """The table and the files agree."""
    folder = Path(commands.__path__[0])
    files = {path.stem.rstrip("_") for path in folder.glob("[a-z]*.py")}

    assert files == set(COMMANDS)
