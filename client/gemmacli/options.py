"""Options and arguments that several commands share."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from gemmacli.app import App
from gemmad.api.errors import BadRequest, GemmaError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def json_option(command: Decorated) -> Decorated:
    """Adds `--json`, which makes the renderer print one JSON value on stdout."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        if isinstance(ctx.obj, App) and value:
            ctx.obj.as_json = True

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=remember, help="Print JSON."
    )(command)


def model_argument(name: str = "model", **settings: Any) -> Callable[[Decorated], Decorated]:
    """Adds a MODEL argument which the shell completes from a running daemon's store."""
    return click.argument(name, shell_complete=complete_model, **settings)


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names in the store that begin with `incomplete`; nothing when no daemon answers."""
    from gemmacli.reaching import connect

    try:
        models = connect(App().env, start=False).models()["models"]
    except GemmaError:
        return []
    return [model["name"] for model in models if model["name"].startswith(incomplete)]


def draft_option(default: str | None = None) -> Callable[[Decorated], Decorated]:
    """Adds `--draft`, which takes `auto`, `off` or a depth."""

    def convert(_ctx: click.Context, _param: click.Parameter, text: str | None) -> str | int | None:
        from gemmacli.asking import draft_mode

        try:
            return None if text is None else draft_mode(text)
        except BadRequest as error:
            raise click.BadParameter(str(error)) from error

    return click.option(
        "--draft", metavar="auto|off|N", default=default, callback=convert, help="Draft depth."
    )


def quantize_option(about: str) -> Callable[[Decorated], Decorated]:
    """Adds `--quantize`, which takes `none`, `int8` or `int4`."""
    return click.option("--quantize", type=click.Choice(("none", "int8", "int4")), help=about)


def draft_quantize_option(command: Decorated) -> Decorated:
    """Adds `--draft-quantize`, which takes `none`, `int8` or `int4`."""
    about = "The same for its drafter."
    return click.option(
        "--draft-quantize", type=click.Choice(("none", "int8", "int4")), help=about
    )(command)


def packing(quantize: str | None, draft_quantize: str | None) -> dict[str, str]:
    """The fields of a request that say how weights are packed; none for what was not given."""
    wishes = {"quantize": quantize, "draft_quantize": draft_quantize}
    return {name: wish for name, wish in wishes.items() if wish is not None}
