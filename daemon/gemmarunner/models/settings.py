"""The JSON files beside a model's weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from gemmad.api.errors import LoadFailed


def read_settings(files: Mapping[str, Path], name: str) -> Mapping[str, object]:
    """The object in one of these files.

    Raises:
        LoadFailed: the file is missing or holds no JSON object.
    """
    if name not in files:
        raise LoadFailed(f"The model has no file {name}.", fix="Pull the model again.")
    try:
        data = json.loads(files[name].read_text())
    except ValueError as error:
        raise LoadFailed(f"{name} is not JSON: {error}.", fix="Pull the model again.") from error
    if not isinstance(data, dict):
        raise LoadFailed(f"{name} is not a JSON object.", fix="Pull the model again.")
    return data
