"""`gemma doctor`."""

import json
from pathlib import Path
from typing import Any

import click

from gemmacli.app import App
from gemmacli.options import json_option
from gemmacli.results import Examined
from gemmad.api.errors import BadRequest

_MAX_BYTES = 60_000  # of a script: the daemon takes no larger one


@click.command()
@click.option(
    "--simulate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Look at a script of memory readings instead of this computer.",
)
@json_option
@click.pass_obj
def command(app: App, simulate: Path | None) -> Examined:
    """Show what this computer has for models, and what fits.

    Devices and memory as the daemon sees them, what pairs run by, the store, and which models of
    the catalogue have room.
    """
    script = None if simulate is None else _script(simulate)
    return Examined(app.daemon().examine(script))


def _script(path: Path) -> Any:
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise BadRequest(f"{path} is larger than {_MAX_BYTES} bytes.", fix="Use 'repeat'.")
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{path} is not JSON: {error}.") from error
