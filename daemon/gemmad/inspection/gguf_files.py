"""Reads a half in GGUF: one file, or the parts of one that was split."""

import math
from pathlib import Path

from gemmad.core import Digest
from gemmad.formats.architectures import GGUF_ARCHITECTURES, Architecture
from gemmad.formats.gguf import LIMITS, Gguf, Value, read_gguf
from gemmad.formats.hf_config import check_supported
from gemmad.formats.limits import BadFile, shown
from gemmad.inspection.half import Files, HalfFacts, reading
from gemmad.inspection.inspected import Parameter
from gemmad.inspection.pairing import gguf_shape
from gemmad.inspection.settings import gguf_settings
from gemmad.inspection.weights import gguf_weights

SUFFIX = ".gguf"
_TOKENS = "tokenizer.ggml.tokens"
_LONGEST_LIST = 1_000  # a number for each layer; only a tokenizer's lists are longer
_MAX_INFO_CHARS = 200
_SAMPLING = {  # `general.sampling.` of GGUF -> ours
    "temp": ("temperature", float),
    "top_k": ("top_k", int),
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
}


def is_gguf(files: Files) -> bool:
    """Whether the weights of this half are GGUF."""
    return any(name.endswith(SUFFIX) for name in files)


def read_gguf_half(files: Files) -> HalfFacts:
    """The facts of a half.

    Raises:
        BadPart: naming the file that cannot be used.
    """
    first, whole = read_parts({n: path for n, path in files.items() if n.endswith(SUFFIX)})
    with reading(first):
        found = gguf_architecture(whole)
        check_supported(found)
        settings = gguf_settings(whole.metadata, str(whole.metadata["general.architecture"]))
        shape = gguf_shape(whole)
        weights = gguf_weights(whole.tensors)
    if shape.vocab is not None:
        settings.setdefault("vocab_size", shape.vocab)
    template = whole.metadata.get("tokenizer.chat_template")
    return HalfFacts(
        format="gguf",
        architecture=found,
        weights=weights,
        settings=settings,
        shape=shape,
        tokenizer=_tokens_digest(whole),
        template=template if isinstance(template, str) else None,
        info=_general(whole),
        parameters=gguf_sampling(whole),
    )


def read_parts(files: Files) -> tuple[str, Gguf]:
    """The name of the file that holds the metadata, and all parts as if they were one file.

    Raises:
        BadPart: naming the file that cannot be used, or a part that is missing.
    """
    parts: dict[int, tuple[str, Gguf]] = {}
    for name, path in sorted(files.items()):
        with reading(name):
            part = _read_part(path)
            number, count = _int(part, "split.no", 0), _int(part, "split.count", 1)
            if number in parts or not 0 <= number < max(count, 1) or max(count, 1) != len(files):
                raise BadFile(f"it is part {number + 1} of {count}, among {len(files)} files")
            parts[number] = (name, part)
            if sum(len(known.tensors) for _, known in parts.values()) > LIMITS.tensors:
                raise BadFile(f"with it, the model has more than {LIMITS.tensors} tensors")
    name, first = parts[0]
    with reading(name):
        tensors = tuple(tensor for number in sorted(parts) for tensor in parts[number][1].tensors)
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise BadFile("one of its tensors is in another part too")
        if _int(first, "split.tensors.count", len(tensors)) != len(tensors):
            raise BadFile("its parts do not hold as many tensors as it says")
    return name, Gguf(first.version, first.metadata, tensors, first.alignment, first.digests)


def gguf_architecture(gguf: Gguf) -> Architecture:
    """What a GGUF file holds.

    Raises:
        BadFile: nothing that is known here.
    """
    named = gguf.metadata.get("general.architecture")
    found = GGUF_ARCHITECTURES.get(named) if isinstance(named, str) else None
    if found is None:
        raise BadFile(f"its architecture {shown(str(named)[:80])!r} is not supported; Gemma 4 is")
    return found


def gguf_sampling(gguf: Gguf) -> dict[str, Parameter]:
    """The sampling parameters that the metadata sets."""
    found: dict[str, Parameter] = {}
    for key, (ours, kind) in _SAMPLING.items():
        value = gguf.metadata.get(f"general.sampling.{key}")
        if type(value) is int:
            found[ours] = value
        elif type(value) is float and kind is float and math.isfinite(value):
            found[ours] = float(f"{value:.6g}")  # a float32 on disk: 0.95 and not 0.94999998
    return found


def _read_part(path: Path) -> Gguf:
    return read_gguf(path, longest=_LONGEST_LIST, hashed=frozenset((_TOKENS,)))


def _tokens_digest(gguf: Gguf) -> Digest | None:
    """A hash over the tokens, each with its length; None where the file has none."""
    found = gguf.digests.get(_TOKENS)
    return Digest(f"sha256:{found}") if found else None


def _general(gguf: Gguf) -> dict[str, object]:
    """Short facts of the metadata that are no settings of the architecture."""
    kept = ("general.", "tokenizer.ggml.")
    return {
        key: value
        for key, value in gguf.metadata.items()
        if key.startswith(kept) and _short(value) and key != "general.architecture"
    }


def _short(value: Value) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_INFO_CHARS
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1 << 62


def _int(gguf: Gguf, key: str, unstated: int) -> int:
    value = gguf.metadata.get(key, unstated)
    if type(value) is not int:
        raise BadFile(f"its {key} is no number")
    return value
