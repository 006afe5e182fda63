"""The file of what was typed: private to the user, and absent where it is not wanted."""

from collections.abc import Mapping

import click
from prompt_toolkit.history import FileHistory

from gemmacli.places import history_path, make_private


def open_history(env: Mapping[str, str]) -> FileHistory | None:
    """The history in a file of mode 0600; None with GEMMA_NOHISTORY or where none can be kept."""
    if env.get("GEMMA_NOHISTORY"):
        return None
    path = history_path(env)
    try:
        make_private(path.parent)
        path.touch(0o600)
        path.chmod(0o600)  # an older file may have been made with a wider mask
    except OSError as error:
        click.echo(f"No history is kept: {error}.", err=True)
        return None
    return FileHistory(str(path))
