"""`gemma export`."""

from pathlib import Path

import click

from gemmacli.app import App
from gemmacli.options import json_option, model_argument
from gemmacli.results import Notice
from gemmad.api.errors import BadRequest


@click.command()
@model_argument()
@click.argument("destination", metavar="DIR|FILE.gguf", type=click.Path(path_type=Path))
@json_option
@click.pass_obj
def command(app: App, model: str, destination: Path) -> Notice | None:
    """Write a model's files for other programs.

    DIR gets Hugging Face's layout, FILE.gguf what llama.cpp loads; the drafter is written beside
    the target. The daemon writes, so it must be allowed to.
    """
    from gemmacli.progress import follow_pull

    client, path = app.daemon(), destination.expanduser().absolute()
    if client.where.socket is None:
        raise BadRequest(
            "A daemon that is reached over TCP cannot write files here.",
            fix="Run gemma export on the daemon's computer, without GEMMA_HOST.",
        )
    _require_free(path)
    form = "gguf" if path.suffix.lower() == ".gguf" else "hf"
    body = {"model": model, "format": form, "path": str(path)}
    last = follow_pull(client.export(body), as_json=app.as_json)
    made = [destination.parent / Path(file).name for file in last.get("files") or ()]
    places = " and ".join(map(str, made)) if form == "gguf" else ""
    return None if app.as_json else Notice(f"exported '{model}' to {places or destination}")


def _require_free(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()) and path.suffix.lower() != ".gguf":
        return
    if path.exists():
        raise BadRequest(f"{path} exists already.", fix="Name another place, or remove it first.")
