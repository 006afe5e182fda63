"""Names, residents and pull progress as Ollama's records; pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gemmad.api.modelfile import NO_DRAFTER, Description, render
from gemmad.api.parameters import as_text
from gemmad.core import HUB_HOST, Manifest, ModelName, Origin, digest_hex
from gemmad.dialects.ollama.replies import timestamp
from gemmad.pulls.job import PullStatus
from gemmad.sources.reference import Reference
from gemmad.store.manifests import Broken

Record = dict[str, Any]

_PARAMETER_COLUMN = 30


def tags(entries: Sequence[Manifest | Broken]) -> Record:
    """GET /api/tags: newest first, broken names last and marked."""
    sound = [entry for entry in entries if isinstance(entry, Manifest)]
    broken = [entry for entry in entries if isinstance(entry, Broken)]
    newest = sorted(sound, key=lambda manifest: manifest.created, reverse=True)
    return {"models": [_tag(m) for m in newest] + [_broken(b) for b in broken]}


def _tag(manifest: Manifest) -> Record:
    return {
        "name": manifest.name,
        "model": manifest.name,
        "modified_at": manifest.created,
        "size": manifest.size,
        "digest": digest_hex(manifest.id),
        "details": details(manifest),
        "capabilities": list(manifest.details.capabilities),
        "drafter": drafter(manifest),
    }


def _broken(entry: Broken) -> Record:
    return {
        "name": str(entry.name),
        "model": str(entry.name),
        "modified_at": timestamp(0),
        "size": 0,
        "digest": "",
        "details": {},
        "broken": entry.reason,
    }


def details(manifest: Manifest) -> Record:
    """The `details` object of a target."""
    known: Record = msgspec.to_builtins(manifest.details)
    known.pop("capabilities")
    return {"parent_model": "", "families": [manifest.details.family]} | known


def drafter(manifest: Manifest) -> Record | None:
    """What is kept of the drafter, or None when the target is alone."""
    if not manifest.drafter:
        return None
    weights = max(manifest.drafter.values(), key=lambda entry: entry.size)
    origin = manifest.drafter_origin or manifest.origin
    return {
        "digest": digest_hex(weights.digest),
        "size": manifest.drafter_size,
        "parameter_size": manifest.drafter_parameter_size or "",
        "source": msgspec.to_builtins(origin),
    }


def show(manifest: Manifest, licence: str, template: str) -> Record:
    """POST /api/show."""
    return {
        "license": licence,
        "modelfile": modelfile(manifest, licence, template),
        "parameters": parameters(manifest),
        "template": template,
        "system": manifest.system or "",
        "details": details(manifest),
        "model_info": manifest.info,
        "capabilities": list(manifest.details.capabilities),
        "modified_at": manifest.created,
        "digest": digest_hex(manifest.id),
        "size": manifest.size,
        "source": msgspec.to_builtins(manifest.origin),
        "drafter": drafter(manifest),
        "draft": _draft_wish(manifest.draft),
        "messages": msgspec.to_builtins(manifest.messages),
        "adapter": sorted(manifest.adapter or ()),
        "projector": sorted(manifest.projector or ()),
        "notes": list(manifest.notes),
    }


def parameters(manifest: Manifest) -> str:
    """The sampling defaults as text, one a line, values in a column of their own."""
    return "\n".join(f"{k:<{_PARAMETER_COLUMN}} {v}" for k, v in _parameter_lines(manifest))


def modelfile(manifest: Manifest, licence: str, template: str) -> str:
    """A Modelfile that makes the pair again: of the same commits where these can be named."""
    name = ModelName.parse(manifest.name)
    description = Description(
        from_=(_from(manifest, name),),
        draft=_draft(manifest, name),
        parameters=as_text(manifest.parameters),
        system=manifest.system,
        template=template or None,
        licences=(licence,) if licence else (),
        messages=tuple((turn.role, turn.content) for turn in manifest.messages),
    )
    return f"# Modelfile of {name}\n{render(description)}"


def _draft_wish(text: str) -> str:
    """How a later pull finds the drafter; where on this machine it lies is nobody else's matter."""
    return "file" if Reference.parse(text).scheme == "path" else text


def _from(manifest: Manifest, name: ModelName) -> str:
    # An adapter and uploaded files have no place that could be asked again: the name has them.
    return name.short if manifest.adapter else _pinned(manifest.origin) or name.short


def _draft(manifest: Manifest, name: ModelName) -> str | None:
    if manifest.drafter:
        origin = manifest.drafter_origin
        return (_pinned(origin) if origin else None) or name.short
    return NO_DRAFTER if manifest.draft == NO_DRAFTER else None


def _pinned(origin: Origin) -> str | None:
    """The reference of a hub's commit; None for every other place."""
    if not origin.source.startswith(f"{HUB_HOST}/") or not origin.revision:
        return None
    place, _, _ = origin.source.partition("@")  # a branch that was named, or a tag
    return f"{place}@{origin.revision}"


def _parameter_lines(manifest: Manifest) -> list[tuple[str, object]]:
    lines: list[tuple[str, object]] = []
    for key, value in sorted(manifest.parameters.items()):
        lines += [(key, each) for each in (value if isinstance(value, list) else [value])]
    return lines


def pull_status(status: PullStatus) -> Record:
    """One line of POST /api/pull."""
    record: Record = msgspec.to_builtins(status)
    return record
