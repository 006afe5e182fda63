"""The parameters a Modelfile may set: their names and types, as text and as values; pure."""

import difflib
import math
from collections.abc import Callable, Mapping

from gemmad.api.errors import BadRequest

Value = int | float | str | list[str]

LIST = "stop"  # the one parameter that may be given several times
PACKINGS = ("none", "int8", "int4")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("a whole number") from None


def _real(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a number")
    return number


def _switch(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise ValueError("true or false")
    return values[text.lower()]


def _packing(text: str) -> str:
    if text.lower() not in PACKINGS:
        raise ValueError("none, int8 or int4")
    return text.lower()


def _draft(text: str) -> int | str:
    if text.lower() in ("auto", "off"):
        return text.lower()
    try:
        return _whole(text)
    except ValueError:
        raise ValueError("auto, off or a depth such as 4") from None


READERS: dict[str, Callable[[str], int | float | str]] = {
    "temperature": _real,
    "top_k": _whole,
    "top_p": _real,
    "min_p": _real,
    "repeat_penalty": _real,
    "repeat_last_n": _whole,
    "presence_penalty": _real,
    "frequency_penalty": _real,
    "seed": _whole,
    "num_ctx": _whole,
    "num_predict": _whole,
    "deterministic": _switch,
    "draft": _draft,
    "draft_num_predict": _whole,
    "quantize": _packing,
    "draft_quantize": _packing,
}
# Ollama has them, this program decides for itself: accepted, so that its Modelfiles can be used.
IGNORED = frozenset(
    (
        *("num_gpu", "num_thread", "num_batch", "main_gpu", "use_mmap", "use_mlock", "num_keep"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "typical_p", "tfs_z", "penalize_newline"),
        *("low_vram", "f16_kv", "vocab_only", "numa", "logits_all", "embedding_only"),
    )
)
KNOWN = (*READERS, LIST)


def check(name: str, text: str) -> None:
    """`text` is a value of the parameter `name`.

    Raises:
        BadRequest: there is no such parameter, or the text is no value of its type.
    """
    if name not in IGNORED:
        _read(name, text)


def typed(parameters: Mapping[str, str | list[str]]) -> dict[str, Value]:
    """The values of parameters given as text; those without effect here are left out.

    Raises:
        BadRequest: there is no such parameter, or a text is no value of its type.
    """
    values: dict[str, Value] = {}
    for name, text in parameters.items():
        if name in IGNORED:
            continue
        if name == LIST:
            values[name] = [text] if isinstance(text, str) else list(text)
        else:
            values[name] = _read(name, text if isinstance(text, str) else text[-1])
    return values


def as_text(parameters: Mapping[str, Value]) -> dict[str, str | list[str]]:
    """Values as a Modelfile writes them; `typed` makes the same values of them again."""
    return {name: _text(name, value) for name, value in parameters.items()}


def _text(name: str, value: Value) -> str | list[str]:
    if isinstance(value, list):
        return list(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return [str(value)] if name == LIST else str(value)


def _read(name: str, text: str) -> int | float | str:
    if name == LIST:
        return text
    reader = READERS.get(name)
    if reader is None:
        close = difflib.get_close_matches(name[:60], KNOWN, n=1)
        fix = f"Did you mean {close[0]}?" if close else f"Known: {', '.join(sorted(KNOWN))}."
        raise BadRequest(f"There is no parameter {name[:60]!r}.", fix=fix)
    try:
        return reader(text)
    except ValueError as error:
        raise BadRequest(f"Parameter {name} is {text[:60]!r}.", fix=f"Use {error}.") from None
