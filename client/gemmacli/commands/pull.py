"""`gemma pull`."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import click

from gemmacli.app import App
from gemmacli.json_object import Json
from gemmacli.options import draft_quantize_option, json_option, packing, quantize_option

NO_DRAFTER = "none"
GRACE = "The pull ends in 10 s unless somebody else waits for it; what came is kept."


@click.command()
@click.argument("model")
@click.option("--draft", metavar="REF", help="Take this drafter instead of the model's own.")
@click.option("--no-draft", is_flag=True, help="Take no drafter.")
@click.option("--detach", is_flag=True, help="Leave at once; the daemon pulls on.")
@quantize_option("How its weights are packed whenever it is loaded.")
@draft_quantize_option
@json_option
@click.pass_obj
def command(
    app: App,
    /,
    model: str,
    draft: str | None,
    no_draft: bool,
    detach: bool,
    quantize: str | None,
    draft_quantize: str | None,
) -> None:
    """Bring a model and its drafter into the store.

    MODEL is a name of the catalogue, hf.co/OWNER/REPO[:FILE-OR-QUANT][@REVISION],
    kaggle:OWNER/MODEL/FRAMEWORK/VARIATION or ollama:NAME. What the store has is not fetched again;
    a pull that was broken off goes on where it was. With --json every progress record is one line
    on stdout.
    """
    from gemmacli.pulling import follow_to_model

    if draft and no_draft:
        raise click.UsageError("--draft and --no-draft cannot be combined.")
    wishes: Json = dict(packing(quantize, draft_quantize))
    if draft or no_draft:
        wishes["draft"] = draft or NO_DRAFTER
    client = app.daemon()
    if detach:
        _detach(client.pull(model, {**wishes, "detach": True}), model, app)
        return
    try:
        follow_to_model(client, model, client.pull(model, wishes), as_json=app.as_json)
    except KeyboardInterrupt:
        click.echo(f"\n{GRACE} Go on with: gemma pull {model}", err=True)
        raise


def _detach(records: Iterator[Json], model: str, app: App) -> None:
    """The pull has begun, or is done where nothing was missing; what is wrong so far was raised."""
    from gemmacli.render import show
    from gemmacli.results import Notice

    state = "pulling"
    with closing(cast("Any", records)):
        for record in records:
            if record.get("status") == "success":
                state = "done"
            elif int(record.get("completed") or 0) < int(record.get("total") or 0):
                break
    text = f"{model} is being pulled. Follow it with: gemma pulls"
    done = f"{model} is in the store."
    show(Notice(done if state == "done" else text, {"model": model, "state": state}), app)
