"""Blobs that a client uploaded and names as files: they become a target, a drafter, an adapter."""

from collections.abc import Mapping

from gemmad.api.errors import BadRequest
from gemmad.core import FileEntry, Origin, digest_of, safe_file_name
from gemmad.formats.file_names import wanted_file
from gemmad.sources.choice import choose
from gemmad.sources.half import Half, Kind, SourceFile, Stored

Uploaded = Mapping[str, FileEntry]


def target(files: Uploaded) -> Half:
    """The target among `files`, with the drafter, projector and documents that lie beside it.

    Raises:
        BadRequest: a name is not one of a model's files.
        Unsupported: there is no model among them.
    """
    _check(files)
    chosen = choose({name: entry.size for name, entry in files.items()}, None)
    kinds: dict[Kind, tuple[str, ...]] = {
        "target": chosen.target,
        "projector": chosen.projector,
        "document": chosen.documents,
    }
    origin = _origin(files)
    found = [_file(kind, name, files) for kind, names in kinds.items() for name in names]
    beside = tuple(_file("drafter", name, files) for name in chosen.drafter)
    return Half(tuple(found), origin, drafter=Half(beside, origin) if beside else None)


def drafter(files: Uploaded) -> Half:
    """All of `files` as a drafter; errors as of a target."""
    _check(files)
    return Half(tuple(_file("drafter", name, files) for name in sorted(files)), _origin(files))


def adapter(files: Uploaded) -> tuple[SourceFile, ...]:
    """All of `files` as an adapter; errors as of a target."""
    _check(files)
    return tuple(_file("adapter", name, files) for name in sorted(files))


def _check(files: Uploaded) -> None:
    for name in files:
        if not safe_file_name(name) or not wanted_file(name):
            raise BadRequest(
                f"{name[:80]!r} is not a file of a model.",
                fix="Send safetensors or GGUF files, and the JSON and text files beside them.",
            )


def _file(kind: Kind, name: str, files: Uploaded) -> SourceFile:
    return SourceFile(kind, name, files[name], Stored())


def _origin(files: Uploaded) -> Origin:
    """Uploads have no commit: their revision is a hash over them."""
    lines = "\n".join(sorted(f"{name} {entry.digest}" for name, entry in files.items()))
    return Origin("files", digest_of(lines.encode()).removeprefix("sha256:")[:40])
