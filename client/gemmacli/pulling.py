"""Follows what brings a model into the store, also where a request needs it first."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from gemmacli.client import DaemonClient
from gemmacli.json_object import Json
from gemmacli.progress import follow_pull
from gemmacli.summary import tell_what_came
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


def follow_to_model(
    client: DaemonClient, model: str, records: Iterable[Json], *, as_json: bool
) -> None:
    """All records were shown, and then the drafter that came; for `as_json` the records alone.

    Raises:
        GemmaError: the daemon's.
    """
    follow_pull(records, as_json=as_json)
    if not as_json:
        tell_what_came(client, model)
