"""Reads a half in Hugging Face's layout: config.json, safetensors, tokenizer, template."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gemmad.core import Digest
from gemmad.formats.hf_config import architecture, check_config, check_keys
from gemmad.formats.json_text import LARGE, SETTINGS, load_object
from gemmad.formats.limits import BadFile, open_regular, read_bounded
from gemmad.formats.safetensors import TensorPlace, read_header
from gemmad.formats.shard_index import shards
from gemmad.inspection.half import Files, HalfFacts, reading
from gemmad.inspection.inspected import Parameter
from gemmad.inspection.pairing import hf_shape, text_config
from gemmad.inspection.settings import hf_settings
from gemmad.inspection.weights import safetensors_weights

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER, TEMPLATE = "tokenizer.json", "chat_template.jinja"
MAX_TOKENIZER_BYTES = 48 << 20  # Gemma's is 32 MB
MAX_TEMPLATE_BYTES = 1 << 20
MAX_TENSORS = 65_536  # of all shards; where each expert's matrices have scales, there are 35,000
_UNREAD = (TOKENIZER, "vocab.json")
_WEIGHTS, _INDEX = ".safetensors", ".safetensors.index.json"
_SAMPLING = {"temperature": float, "top_k": int, "top_p": float, "min_p": float}


def read_hf_half(files: Files) -> HalfFacts:
    """The facts of a half, every file of it checked.

    Raises:
        BadPart: naming the file that cannot be used.
    """
    names = (name for name in files if name.endswith(".json") and not name.endswith(_INDEX))
    texts = {name: read_settings(name, files) for name in names}
    config = texts.get(CONFIG, {})
    with reading(CONFIG):
        if CONFIG not in files:
            raise BadFile("it is missing")
        check_config(config)
        settings, shape = hf_settings(text_config(config)), hf_shape(config)
    places = read_tensors(files)
    with reading(next(name for name in files if name.endswith(_WEIGHTS))):
        weights = safetensors_weights(places, config.get("quantization_config"))
    return HalfFacts(
        format="safetensors",
        architecture=architecture(config),
        weights=weights,
        settings=settings,
        shape=shape,
        tokenizer=_digest(files, TOKENIZER),
        template=_template(files, texts),
        parameters=sampling(texts.get(GENERATION, {})),
    )


def read_settings(name: str, files: Files) -> dict[str, Any]:
    """One JSON file of a repository; of a vocabulary, nothing but that it is JSON.

    Raises:
        BadPart: it is damaged, too large, or asks for code.
    """
    with reading(name):
        if name in _UNREAD:
            _check_tokenizer(files[name])
            return {}
        found = load_object(read_bounded(files[name], SETTINGS.nbytes))
        check_keys(found)
    return found


def read_tensors(files: Files) -> list[TensorPlace]:
    """The tensors of all safetensors files; where there is an index, its shards are here.

    Raises:
        BadPart: naming the file.
    """
    for index in (name for name in files if name.endswith(_INDEX)):
        with reading(index):
            for shard in shards(read_bounded(files[index], LARGE.nbytes)):
                if shard not in files:
                    raise BadFile(f"it names {shard}, which is not there")
    found: dict[str, TensorPlace] = {}
    for name in sorted(name for name in files if name.endswith(_WEIGHTS)):
        with reading(name):
            for place in read_header(files[name]):
                if place.name in found:
                    raise BadFile(f"its tensor {place.name[:80]} is in another file too")
                found[place.name] = place
            if len(found) > MAX_TENSORS:
                raise BadFile(f"with it, the model has more than {MAX_TENSORS} tensors")
    if not found:
        with reading("model.safetensors"):
            raise BadFile("it is missing or has no tensors")
    return list(found.values())


def sampling(generation: Mapping[str, Any]) -> dict[str, Parameter]:
    """The sampling parameters that a generation config sets."""
    found: dict[str, Parameter] = {}
    for key, kind in _SAMPLING.items():
        value = generation.get(key)
        number = type(value) is int or (kind is float and type(value) is float)
        if number and math.isfinite(value):  # type: ignore[arg-type]
            found[key] = value  # type: ignore[assignment]
    return found


def _check_tokenizer(path: Path) -> None:
    try:  # raw: its vocabulary alone would be 500,000 objects
        msgspec.json.decode(read_bounded(path, MAX_TOKENIZER_BYTES), type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFile("its JSON is damaged") from error


def _digest(files: Files, name: str) -> Digest | None:
    if name not in files:
        return None
    with reading(name), open_regular(files[name]) as file:
        hashed = hashlib.sha256()
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
        return Digest(f"sha256:{hashed.hexdigest()}")


def _template(files: Files, texts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The chat template: a file of its own, or in one of the two where older tools put it."""
    if TEMPLATE in files:
        with reading(TEMPLATE):
            try:
                return read_bounded(files[TEMPLATE], MAX_TEMPLATE_BYTES).decode()
            except UnicodeDecodeError:
                raise BadFile("it is not UTF-8") from None
    for name in ("chat_template.json", "tokenizer_config.json"):
        text = texts.get(name, {}).get("chat_template")
        if isinstance(text, str):
            return text
    return None
