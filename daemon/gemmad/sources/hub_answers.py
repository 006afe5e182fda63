"""What a hub's JSON says of a repository: decoded by its types, bounded, and checked; pure.

A hub is not trusted. An answer that no hub would give (a file outside the repository, a negative
size, a commit that is none) is refused whole: nothing else it says can be believed then.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec

from gemmad.api.errors import PullFailed

MOST_SIZE = 1 << 62
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_MOST_NAME = 1024
_MOST_BASES = 4
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_ELEMENT_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2}
_ELEMENT_BYTES |= {"I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}

Size = Annotated[int, msgspec.Meta(ge=0, le=MOST_SIZE)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository at one commit."""

    name: str
    size: int
    blob_id: str  # git's hash of a small file
    sha256: str | None  # of a large file


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one commit."""

    repository: str
    commit: str
    files: dict[str, HubFile]
    base_models: tuple[str, ...]  # what its card says it was made from
    licence: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """One repository that a search found."""

    repository: str
    weight_bytes: int | None  # of its safetensors; None: it has none, or the hub does not say


class _Lfs(msgspec.Struct, frozen=True):
    size: Size
    sha256: str | None = None  # in a listing
    oid: str | None = None  # in a tree


class _Sibling(msgspec.Struct, frozen=True):
    rfilename: str
    size: Size | None = None
    blobId: str | None = None  # noqa: N815  (the hub's spelling)
    lfs: _Lfs | None = None

    @property
    def file(self) -> HubFile:
        return _file(self.rfilename, self.size, self.blobId, self.lfs)


class _Entry(msgspec.Struct, frozen=True):
    path: str
    type: str
    size: Size = 0
    oid: str = ""
    lfs: _Lfs | None = None

    @property
    def file(self) -> HubFile:
        return _file(self.path, self.size, self.oid, self.lfs)


class _Card(msgspec.Struct, frozen=True):
    base_model: Any = None
    license: Any = None


class _Info(msgspec.Struct, frozen=True):
    sha: str
    siblings: list[_Sibling] = []
    cardData: _Card | None = None  # noqa: N815


class _Weights(msgspec.Struct, frozen=True):
    parameters: dict[str, Size] = {}


class _Summary(msgspec.Struct, frozen=True):
    id: str
    safetensors: _Weights | None = None


def read_listing(repository: str, data: bytes) -> Listing:
    """The listing in the answer to a question for one repository.

    Raises:
        PullFailed: it is not one.
    """
    info = _decoded(repository, data, _Info)
    if not _COMMIT.fullmatch(info.sha):
        raise nonsense(repository, "it names no commit")
    card = info.cardData or _Card()
    bases = card.base_model if isinstance(card.base_model, list) else [card.base_model]
    return Listing(
        repository=repository,
        commit=info.sha,
        files=named(repository, (sibling.file for sibling in info.siblings)),
        base_models=tuple(filter(_is_repository, bases))[:_MOST_BASES],
        licence=card.license[:100] if isinstance(card.license, str) else None,
    )


def lacks_facts(listing: Listing) -> bool:
    """Whether only names were told: mirrors forget to ask for sizes and hashes."""
    files = listing.files.values()
    return bool(files) and not any(file.blob_id or file.sha256 for file in files)


def read_tree(repository: str, data: bytes) -> list[HubFile]:
    """The files on one page of a repository's tree.

    Raises:
        PullFailed: it is not one.
    """
    entries = _decoded(repository, data, list[_Entry])
    return [entry.file for entry in entries if entry.type == "file"]


def read_search(data: bytes) -> list[Found]:
    """The repositories in the answer to a search.

    Raises:
        PullFailed: it is not one.
    """
    found = _decoded("a search", data, list[_Summary])
    return [
        Found(one.id, _weight_bytes(one.safetensors)) for one in found if _is_repository(one.id)
    ]


def named(repository: str, files: Iterable[HubFile]) -> dict[str, HubFile]:
    """The files by name, each name once and inside the repository.

    Raises:
        PullFailed: it is not so.
    """
    found: dict[str, HubFile] = {}
    for file in files:
        if not _inside(file.name):
            raise nonsense(repository, f"it lists the file {file.name[:80]!r}")
        if file.name in found:
            raise nonsense(repository, f"it lists {file.name[:80]!r} twice")
        if file.sha256 is not None and not _SHA256.fullmatch(file.sha256):
            raise nonsense(repository, f"the hash of {file.name[:80]!r} is none")
        found[file.name] = file
    return found


def nonsense(what: str, why: str) -> PullFailed:
    """An answer that is not believed."""
    return PullFailed(
        f"What the hub says of {what} cannot be right: {why}.",
        fix="Nothing was pulled. Check HF_ENDPOINT, the network's login page, and the repository.",
    )


def _decoded(what: str, data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise nonsense(what, str(error)[:200].rstrip(".")) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise nonsense(what, "it is not JSON") from error


def _file(name: str, size: int | None, blob_id: str | None, lfs: _Lfs | None) -> HubFile:
    if lfs is None:
        return HubFile(name, size or 0, blob_id or "", None)
    return HubFile(name, lfs.size, blob_id or "", lfs.sha256 or lfs.oid or "")


def _inside(name: str) -> bool:
    parts = name.split("/")
    return 0 < len(name) <= _MOST_NAME and not (
        _CONTROL.search(name) or any(part in ("", ".", "..") for part in parts)
    )


def _is_repository(value: object) -> bool:
    return isinstance(value, str) and ".." not in value and bool(_REPOSITORY.fullmatch(value))


def _weight_bytes(weights: _Weights | None) -> int | None:
    """What the numbers take, header and padding aside; None when one of the types is not known."""
    if weights is None or not weights.parameters.keys() <= _ELEMENT_BYTES.keys():
        return None
    return sum(_ELEMENT_BYTES[kind] * count for kind, count in weights.parameters.items()) or None
