"""What a look into a pair's files gives, and the one JSON object in which the child answers.

{"inspected": {"details": {...}, ...}}
{"refused": "model.gguf cannot be used: it is GGUF version 9; versions 2 and 3 are read."}
"""

import msgspec

from gemmad.core import Details, Digest

Parameter = bool | int | float | str | list[str]


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a pair."""

    details: Details
    info: dict[str, object]
    tokenizer: Digest  # of tokenizer.json; in GGUF files, a hash over the tokens
    template: Digest | None = None
    parameters: dict[str, Parameter] = {}  # sampling defaults
    drafter_parameter_size: str | None = None
    drafter_mismatch: str | None = None  # why the drafter does not belong to the target
    notes: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the two."""

    inspected: Inspected | None = None
    refused: str | None = None
