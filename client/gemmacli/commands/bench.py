"""`gemma bench`: the same prompts with and without drafting, interleaved."""

import sys
from typing import TextIO

import click

from gemmacli.app import App
from gemmacli.asking import Settings
from gemmacli.bench_prompts import PROMPTS
from gemmacli.benchmark import OFF, Sample, Trial, plan, report
from gemmacli.client import DaemonClient
from gemmacli.options import draft_option, json_option, model_argument
from gemmacli.pulling import with_model
from gemmacli.records import figures, piece
from gemmacli.results import Measured


@click.command()
@model_argument()
@click.option(
    "--prompts", type=click.File(encoding="utf-8"), help="File with a prompt on each line."
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--num-predict", type=click.IntRange(min=1), default=128, show_default=True)
@draft_option(default="auto")
@json_option
@click.pass_obj
def command(
    app: App, model: str, prompts: TextIO | None, repeats: int, num_predict: int, draft: str | int
) -> Measured:
    """Measure a model with and without its drafter.

    Every prompt is answered greedily with drafting off and on, in alternating order. A first
    round of all prompts in both modes warms up and is not counted.
    """
    if draft == OFF:
        raise click.UsageError("--draft off would compare off with off; use auto or a depth.")
    texts = _read(prompts) if prompts else list(PROMPTS)
    client = app.daemon()
    with_model(client, model, lambda: client.complete({"model": model, "prompt": ""}))
    trials = [*plan(len(texts), 1, draft), *plan(len(texts), repeats, draft)]
    samples = []
    for number, trial in enumerate(trials, 1):
        _count(number, len(trials))
        samples.append(_measure(client, model, texts[trial.prompt], trial, num_predict))
    counted = samples[2 * len(texts) :]
    return Measured(report(model, texts, counted, draft=draft, num_predict=num_predict))


def _measure(
    client: DaemonClient, model: str, prompt: str, trial: Trial, num_predict: int
) -> Sample:
    """One greedy answer, not streamed: the client must not take time from the engine's cores."""
    options = {"temperature": 0, "num_predict": num_predict}
    wishes = Settings(options=options, think=False, draft=trial.draft)
    record = client.complete(wishes.generate(model, prompt))
    text, thinking, _ = piece(record)
    seen = figures(record)
    return Sample(trial, thinking + text, seen.eval_tokens, seen.eval_s, seen.draft)


def _count(number: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if number == total else ""
        click.echo(f"\rAnswer {number} of {total} (with warm-up)", nl=False, err=True)
        click.echo(end, nl=False, err=True)


def _read(lines: TextIO) -> list[str]:
    prompts = [line.strip() for line in lines]
    prompts = [prompt for prompt in prompts if prompt and not prompt.startswith("#")]
    if not prompts:
        raise click.UsageError("The file given to --prompts holds no prompt.")
    return prompts
