"""The shards that `model.safetensors.index.json` names: safe file names, or the index is refused.

{"metadata": {"total_size": 1}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
"""  # noqa: E501

import re

from gemmad.formats.json_text import LARGE, load_object
from gemmad.formats.limits import BadFile, shown

MAX_SHARDS = 4_096
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,107}\.safetensors")


def shards(index: bytes) -> tuple[str, ...]:
    """The names of the shards, sorted.

    Raises:
        BadFile: it is no index, or names what is no plain file name of a safetensors file.
    """
    weights = load_object(index, LARGE).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise BadFile("it has no weight_map")
    odd = [name for name in weights.values() if not _plain(name)]
    if odd:
        raise BadFile(f"it names an unsafe shard: {shown(str(odd[0]))!r}")
    names = tuple(sorted(set(weights.values())))
    if len(names) > MAX_SHARDS:
        raise BadFile(f"it names {len(names)} shards; at most {MAX_SHARDS} are read")
    return names


def _plain(name: object) -> bool:
    return isinstance(name, str) and _SHARD.fullmatch(name) is not None
