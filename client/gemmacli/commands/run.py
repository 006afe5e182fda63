"""`gemma run`: one answer, or a conversation on a terminal."""

from typing import Any

import click

from gemmacli.app import App
from gemmacli.asking import Settings, keep_alive, output_format
from gemmacli.options import draft_option, json_option, model_argument, quantize_option
from gemmacli.results import Answered

_OPTIONS = (
    *("temperature", "top_k", "top_p", "min_p", "seed", "num_ctx", "num_predict"),
    *("quantize", "deterministic"),
)


@click.command()
@model_argument()
@click.argument("prompt", nargs=-1)
@click.option("--system", help="System message.")
@click.option("--think/--no-think", default=None, help="Let the model think first, or not.")
@click.option("--hidethinking", is_flag=True, help="Do not print the thinking.")
@draft_option()
@click.option("--keepalive", metavar="TIME", help="Keep the model loaded for so long, e.g. 10m.")
@click.option("--temperature", type=float, help="0 is greedy.")
@click.option("--top-k", type=int, help="Sample from the k likeliest tokens; 0 is off.")
@click.option("--top-p", type=float, help="Sample from the likeliest share p; 1 is off.")
@click.option("--min-p", type=float, help="Drop tokens below p times the likeliest; 0 is off.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@click.option("--num-ctx", type=int, help="Context length in tokens.")
@quantize_option("Pack the weights when loading, unless they are packed.")
@click.option(
    "--deterministic/--no-deterministic",
    default=None,
    help="The answer does not depend on what runs beside it, bit for bit.",
)
@click.option("--num-predict", type=int, help="Longest answer in tokens; -1 is no limit.")
@click.option("--stop", multiple=True, help="End the answer before this text; repeatable.")
@click.option("--raw", is_flag=True, help="Send the prompt without the chat template.")
@click.option("--format", "form", metavar="FORM", help="json, or a JSON schema.")
@click.option("--nowordwrap", is_flag=True, help="Do not wrap lines at the edge of the screen.")
@click.option("--verbose", is_flag=True, help="Print all figures after the answer.")
@click.option("-q", "--quiet", is_flag=True, help="Print no figures after the answer.")
@json_option
@click.pass_obj
def command(
    app: App,
    /,
    model: str,
    prompt: tuple[str, ...],
    hidethinking: bool,
    nowordwrap: bool,
    verbose: bool,
    quiet: bool,
    **wishes: Any,
) -> Answered | None:
    """Ask a model, or talk with it.

    Text piped in is put before PROMPT. Without either, on a terminal, a conversation begins.
    A model that the store does not have is pulled. Answers go to stdout, all else to stderr.
    """
    from gemmacli.answering import Collector, follow
    from gemmacli.piped import read_prompt
    from gemmacli.printer import AnswerPrinter, SilentScreen
    from gemmacli.pulling import with_model

    settings = _settings(wishes)
    text = read_prompt(prompt)
    if text is None and app.as_json:
        raise click.UsageError("--json needs a prompt.")
    if text is None:
        _converse(app, model, settings, verbose, hidethinking, not nowordwrap)
        return None
    client = app.daemon()
    request = settings.generate(model, text)

    def answer() -> Answered:
        printer = AnswerPrinter(hide_thinking=hidethinking, word_wrap=not nowordwrap)
        screen = SilentScreen() if app.as_json else printer
        whole = follow(client.generate(request), screen, Collector())
        return Answered(model, whole, verbose=verbose, quiet=quiet)

    return with_model(client, model, answer)


def _settings(wishes: dict[str, Any]) -> Settings:
    options = {name: wishes[name] for name in _OPTIONS if wishes[name] is not None}
    if wishes["stop"]:
        options["stop"] = list(wishes["stop"])
    return Settings(
        options=options,
        system=wishes["system"],
        think=wishes["think"],
        draft=wishes["draft"],
        keep_alive=None if wishes["keepalive"] is None else keep_alive(wishes["keepalive"]),
        output_format=None if wishes["form"] is None else output_format(wishes["form"]),
        raw=wishes["raw"],
    )


def _converse(
    app: App, model: str, settings: Settings, verbose: bool, hide_thinking: bool, word_wrap: bool
) -> None:
    from gemmacli.repl import converse
    from gemmacli.session import Session

    session = Session(
        model, settings, verbose=verbose, hide_thinking=hide_thinking, word_wrap=word_wrap
    )
    converse(app.daemon(), session, app.env)
