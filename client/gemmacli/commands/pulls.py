"""`gemma pulls`."""

import click

from gemmacli.app import App
from gemmacli.options import json_option
from gemmacli.results import Notice, Pulling


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context) -> Pulling | None:
    """List the pulls that run, or cancel one.

    Starts no daemon: without one, nothing is being pulled.
    """
    from gemmacli.transport import NotRunning

    if ctx.invoked_subcommand is not None:
        return None
    app = ctx.find_object(App)
    assert app is not None
    try:
        return Pulling(app.daemon(start=False).pulls())
    except NotRunning:
        return Pulling(None)


@command.command()
@click.argument("model")
@json_option
@click.pass_obj
def cancel(app: App, model: str) -> Notice:
    """End a pull.

    What it brought is kept for the next one; `gemma rm --partial` removes it.
    """
    app.daemon(start=False).cancel_pull(model)
    return Notice(f"cancelled the pull of '{model}'", {"cancelled": model})
