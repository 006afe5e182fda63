"""Checks Ollama's `options`, one table row an option; pure."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gemmad.api.errors import BadRequest
from gemmad.dialects.request import Options
from gemmad.wire import DraftMode

MAX_DEPTH = 8
MAX_CONTEXT = 1 << 20
MAX_STOPS = 16
MAX_STOP_CHARS = 256
T = TypeVar("T")
_INT32 = (1 << 31) - 1
_INT64 = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int
    most: int

    def read(self, value: object) -> int:
        """`value`, when it is one.

        Raises:
            ValueError: it is not; the text is the accepted form.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # JavaScript and Go write 10 and 10.0 alike
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(self.accepted)
        if not self.least <= value <= self.most:
            raise ValueError(self.accepted)
        return value

    @property
    def accepted(self) -> str:
        """The accepted form, for a person."""
        return f"a whole number from {self.least} to {self.most}"


@dataclass(frozen=True, slots=True)
class Real:
    """A finite number from `least` to `most`; `least` itself is out when `above`."""

    least: float
    most: float
    above: bool = False

    def read(self, value: object) -> float:
        """`value`, when it is one.

        Raises:
            ValueError: it is not; the text is the accepted form.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(self.accepted)
        if not self.least <= value <= self.most or (self.above and value == self.least):
            raise ValueError(self.accepted)
        return float(value)

    @property
    def accepted(self) -> str:
        """The accepted form, for a person."""
        return f"a number {'above' if self.above else 'from'} {self.least:g} up to {self.most:g}"


def _num_predict(value: object) -> int:
    number = Whole(-2, _INT32).read(value)
    if number == 0:
        raise ValueError("a whole number from 1, or -1 for no limit")
    return max(number, -1)  # Ollama's -2, "until the context is full", is what -1 does here


def _seed(value: object) -> int | None:
    number = Whole(-1, _INT64).read(value)
    return None if number == -1 else number


def _top_k(value: object) -> int:
    return max(0, Whole(-1, _INT32).read(value))


def _stop(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value
    accepted = f"up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters"
    if not isinstance(stops, list) or len(stops) > MAX_STOPS:
        raise ValueError(accepted)
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= MAX_STOP_CHARS:
            raise ValueError(accepted)
    return tuple(stops)


# Fields of wire.Sampling. `null` counts as not given, as in Ollama.
SAMPLING: dict[str, Callable[[object], object]] = {
    "temperature": Real(0, 100).read,
    "top_k": _top_k,
    "top_p": Real(0, 1).read,
    "min_p": Real(0, 1).read,
    "repeat_penalty": Real(0, 100, above=True).read,
    "repeat_last_n": Whole(-1, MAX_CONTEXT).read,
    "presence_penalty": Real(-100, 100).read,
    "frequency_penalty": Real(-100, 100).read,
    "seed": _seed,
    "num_predict": _num_predict,
    "stop": _stop,
}
NUM_CTX = Whole(16, MAX_CONTEXT)


def _quantize(value: object) -> str:
    if value not in ("none", "int8", "int4"):
        raise ValueError("none, int8 or int4")
    return str(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


# What changes how a pair is loaded: another value than the loaded one's loads it again.
LOADING: dict[str, Callable[[object], object]] = {
    "num_ctx": NUM_CTX.read,
    "quantize": _quantize,
    "draft_quantize": _quantize,
    "deterministic": _switch,
}

# Known to Ollama and without effect here: clients send them, so they are no error.
IGNORED = frozenset(
    (
        "num_gpu",
        "num_thread",
        "num_batch",
        "main_gpu",
        "use_mmap",
        "use_mlock",
        "num_keep",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "typical_p",
        "tfs_z",
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "vocab_only",
        "numa",
        "logits_all",
        "embedding_only",
    )
)
_KNOWN = (*SAMPLING, *LOADING, "draft", "draft_num_predict")


def read_options(options: Mapping[str, object] | None, draft: object = None) -> Options:
    """The checked options; `draft` is the request's own field, which wins over the one in options.

    Raises:
        BadRequest: an option is unknown or out of its range; the message names it.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    for name in given:
        if name not in _KNOWN and name not in IGNORED:
            raise _unknown(name)
    sampling = {n: _read(n, given[n], read) for n, read in SAMPLING.items() if n in given}
    loading: dict[str, Any] = {n: _read(n, given[n], r) for n, r in LOADING.items() if n in given}
    wanted = draft if draft is not None else given.get("draft", given.get("draft_num_predict"))
    return Options(sampling, draft=None if wanted is None else read_draft(wanted), **loading)


def read_draft(value: object) -> DraftMode:
    """How to draft: `auto`, `off`, or a fixed depth.

    Raises:
        BadRequest: it is none of these.
    """
    if value == "auto":
        return "auto"
    if value == "off":
        return "off"
    depth = _read("draft", value, _depth)
    return depth or "off"


def _depth(value: object) -> int:
    try:
        return Whole(0, MAX_DEPTH).read(value)
    except ValueError:
        raise ValueError(f"'auto', 'off', or a depth from 0 to {MAX_DEPTH}") from None


def _read(name: str, value: object, read: Callable[[object], T]) -> T:
    try:
        return read(value)
    except ValueError as error:
        shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
        raise BadRequest(f"Option '{name}' is {shown[:60]}.", fix=f"Use {error}.") from None


def _unknown(name: str) -> BadRequest:
    close = difflib.get_close_matches(name[:60], _KNOWN, n=1)
    fix = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(sorted(_KNOWN))}."
    return BadRequest(f"Unknown option {name[:60]!r}.", fix=fix)
