"""A first look at whether two halves fit, while only their small files are in hand."""

from collections.abc import Iterable, Mapping
from typing import Any

from gemmad.formats.json_text import load_json
from gemmad.formats.limits import BadFile
from gemmad.inspection.pairing import hf_shape, mismatch
from gemmad.sources.half import Content, Local, SourceFile

_CONFIG = "config.json"
_CONFIG_BYTES = 1 << 20


def refusal(target: Iterable[SourceFile], drafter: Iterable[SourceFile]) -> str | None:
    """Why the drafter does not belong to the target; None also when this cannot be said yet.

    Configurations that cannot be read are left to the inspection, which names what is wrong.
    """
    first, second = _config(target), _config(drafter)
    if first is None or second is None:
        return None
    try:
        return mismatch(hf_shape(first), hf_shape(second))
    except BadFile:
        return None


def _config(files: Iterable[SourceFile]) -> Mapping[str, Any] | None:
    found = next((file for file in files if file.name == _CONFIG), None)
    data = _data(found) if found else None
    if data is None or len(data) > _CONFIG_BYTES:
        return None
    try:
        config = load_json(data)
    except BadFile:
        return None
    return config if isinstance(config, Mapping) else None


def _data(file: SourceFile) -> bytes | None:
    if isinstance(file.bytes, Content):
        return file.bytes.data
    if isinstance(file.bytes, Local):
        try:
            with file.bytes.path.open("rb") as opened:
                return opened.read(_CONFIG_BYTES + 1)
        except OSError:
            return None
    return None
