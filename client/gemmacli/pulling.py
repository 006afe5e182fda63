"""Runs a request, pulling the model first when the store does not have it."""

from collections.abc import Callable
from typing import TypeVar

import click

from gemmacli.client import DaemonClient
from gemmacli.progress import follow_pull
from gemmad.api.errors import ModelNotFound

Result = TypeVar("Result")


def with_model(client: DaemonClient, model: str, action: Callable[[], Result]) -> Result:
    """The action's result; the model was pulled, with progress on stderr, if it was missing.

    `action` must fail with ModelNotFound before it has any effect, as the daemon does.

    Raises:
        GemmaError: the pull's or the action's.
    """
    try:
        return action()
    except ModelNotFound:
        click.echo(f"{model} is not in the store yet; pulling it.", err=True)
        follow_pull(client.pull(model))
    return action()
