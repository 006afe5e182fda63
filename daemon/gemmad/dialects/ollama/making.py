"""Bodies of the requests that make, mend and look for names, and what they mean; pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gemmad.api.errors import BadRequest
from gemmad.api.parameters import IGNORED, typed
from gemmad.core import FileEntry, ModelName, Turn, digest
from gemmad.dialects.ollama.options import read_options
from gemmad.dialects.ollama.requests import NameBody, model_name
from gemmad.recipes.places import reference_of
from gemmad.recipes.template import check_template
from gemmad.recipes.wish import Creation, Overlay, Wish
from gemmad.sources.half import Parameters
from gemmad.sources.reference import Reference

TURN_ROLES = ("system", "user", "assistant")
_WORDS = ("auto", "none")  # what a drafter may be beside a reference

Entry = Callable[[str], FileEntry | None]  # the blob of a digest, when it is in the store


class PullBody(NameBody, kw_only=True):
    """POST /api/pull. `detach`: the pull goes on when its clients leave."""

    draft: str | None = None
    quantize: str | None = None
    draft_quantize: str | None = None
    detach: bool | None = None


class DraftBody(NameBody, kw_only=True):
    """POST and DELETE /api/draft."""

    draft: str = ""


class _Turn(msgspec.Struct):
    role: str
    content: str = ""
    images: list[Any] | None = None


class CreateBody(NameBody, kw_only=True, rename={"from_": "from"}):
    """POST /api/create; the paths are files of this machine, for callers on it."""

    from_: str | None = None
    files: dict[str, str] | None = None
    draft: str | None = None
    draft_files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    system: str | None = None
    license: str | list[str] | None = None
    parameters: dict[str, Any] | None = None
    messages: list[_Turn] | None = None
    quantize: str | None = None
    draft_quantize: str | None = None
    from_path: str | None = None
    draft_path: str | None = None
    adapter_path: str | None = None


class SearchBody(msgspec.Struct):
    """POST /api/search."""

    query: str = ""


class GcBody(msgspec.Struct):
    """POST /api/gc: what would be removed, unless `dry_run` is false."""

    dry_run: bool = True


class VerifyBody(NameBody, kw_only=True):
    """POST /api/verify; without a model all are verified."""

    repair: bool | None = None


class ImportBody(NameBody, kw_only=True):
    """POST /api/import; without a model all are imported."""

    source: str = ""
    store: str | None = None  # a path of this machine


class ExportBody(NameBody, kw_only=True):
    """POST /api/export."""

    format: str = ""
    path: str = ""
    force: bool | None = None  # replace what is there


@dataclass(frozen=True, slots=True)
class Pull:
    """What a pull body asks for."""

    name: ModelName
    reference: Reference
    wish: Wish


def pull_request(body: PullBody) -> Pull:
    """What is pulled, under which name and how.

    Raises:
        BadRequest: a field is wrong; the message names it.
    """
    if not body.called:
        model_name(body.called)  # or BadRequest: it is missing
    reference = reference_of(body.called)
    return Pull(reference.name, reference, Wish(_drafter(body.draft), _packing(body)))


def creation(body: CreateBody, entry: Entry) -> Creation:
    """What a create body makes; `entry` finds uploaded blobs.

    Raises:
        BadRequest: a field is wrong; the message names it.
    """
    bases = [text for text in (body.from_, body.files, body.from_path) if text]
    if len(bases) != 1:
        what = "Neither 'from' nor 'files' was" if not bases else "More than one base is"
        raise BadRequest(f"{what} given.", fix="Give 'from' a model, or 'files' uploaded blobs.")
    if body.draft_files and (body.draft or body.draft_path):
        raise BadRequest("Both 'draft' and 'draft_files' are given.", fix="Leave one out.")
    if body.template:
        check_template(body.template)
    return Creation(
        base=_path(body.from_path) or (reference_of(body.from_) if body.from_ else None),
        files=_entries("files", body.files, entry),
        draft=body.draft_path or _drafter(body.draft),
        draft_files=_entries("draft_files", body.draft_files, entry),
        adapter=_path(body.adapter_path),
        adapter_files=_entries("adapters", body.adapters, entry),
        overlay=_overlay(body),
    )


def draft_reference(body: DraftBody) -> str:
    """The drafter that is to be attached.

    Raises:
        BadRequest: it is missing or no reference.
    """
    if not body.draft or body.draft in _WORDS:
        raise BadRequest("The field 'draft' names no drafter.", fix="Use e.g. hf.co/OWNER/REPO.")
    Reference.parse(body.draft)
    return body.draft


def _overlay(body: CreateBody) -> Overlay:
    licence = body.license if isinstance(body.license, str) else "\n".join(body.license or ())
    return Overlay(
        parameters={**_parameters(body.parameters or {}), **_packing(body)},
        system=body.system,
        template=body.template or None,
        licence=licence or None,
        messages=tuple(_turn(n, turn) for n, turn in enumerate(body.messages or ())),
    )


def _drafter(text: str | None) -> str | None:
    if text and text not in _WORDS:
        Reference.parse(text)  # or BadRequest
    return text or None


def _path(text: str | None) -> Reference | None:
    return Reference("path", text) if text else None


def _entries(field: str, files: Mapping[str, str] | None, entry: Entry) -> dict[str, FileEntry]:
    found: dict[str, FileEntry] = {}
    for name, text in (files or {}).items():
        blob = entry(digest(text.replace("sha256-", "sha256:", 1)))
        if blob is None:
            raise BadRequest(
                f"The blob {text[:80]!r} of {field}[{name[:60]!r}] is not in the store.",
                fix="Upload it first: POST /api/blobs/sha256:<digest>",
            )
        found[name] = blob
    return found


def _parameters(given: Mapping[str, Any]) -> Parameters:
    """Checked parameters; texts, as a Modelfile has them, are read as their values."""
    texts = {name: value for name, value in given.items() if isinstance(value, str)}
    values = {**given, **typed(texts)}
    stop = values.get("stop")
    if isinstance(stop, str):
        values["stop"] = [stop]
    kept = {n: v for n, v in values.items() if n not in IGNORED and v is not None}
    read_options(kept)  # or a BadRequest that names the parameter and what is accepted
    return kept


def _packing(body: PullBody | CreateBody) -> Parameters:
    named = {"quantize": body.quantize, "draft_quantize": body.draft_quantize}
    given = {name: value for name, value in named.items() if value}
    read_options(given)
    return given


def _turn(number: int, turn: _Turn) -> Turn:
    role = turn.role.lower()
    if role not in TURN_ROLES or turn.images:
        raise BadRequest(
            f"messages[{number}] is of {turn.role[:40]!r}.",
            fix=f"Use texts of {', '.join(TURN_ROLES)}.",
        )
    return Turn(role, turn.content)
