"""A directory or a GGUF file on this machine as a source; files are taken over by link or copy.

DIR/config.json, *.safetensors, tokenizer.json, ...     Hugging Face's layout: a target or a drafter
DIR/target/, DIR/drafter/, DIR/LICENSE, DIR/README.md   a pair in two folders, as exported
DIR/*.gguf, FILE.gguf                                   GGUF; mtp-* beside it is its drafter
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from gemmad.api.errors import ModelNotFound, PullFailed
from gemmad.core import ByteCount, Digest, FileEntry, Origin, digest_of, safe_file_name
from gemmad.formats.file_names import wanted_file
from gemmad.sources.choice import choose
from gemmad.sources.half import Half, Kind, Local, SourceFile
from gemmad.sources.reference import Reference

_GGUF = ".gguf"


class DirectorySource:
    """Serves paths of this machine; who may name one is the server's matter."""

    def knows(self, reference: Reference) -> bool:
        """Whether the reference is a path."""
        return reference.scheme == "path"

    def target(self, reference: Reference) -> Half:
        """The target at the path, see `target_half`."""
        return target_half(_path(reference))

    def drafter(self, reference: Reference) -> Half:
        """The drafter at the path, see `drafter_half`."""
        return drafter_half(_path(reference))

    def pair_of(self, _reference: Reference, _target: Half) -> Half | None:
        """None: a directory knows of no other."""
        return None


def target_half(path: Path, origin: Origin | None = None) -> Half:
    """The target at `path`, with what lies beside it: drafter, projector, documents.

    Raises:
        ModelNotFound: there is no such directory or file.
        PullFailed: a file cannot be read.
        Unsupported: there is no model in it.
    """
    folder, variant = _place(path)
    if (folder / "target").is_dir():
        return _two_folders(folder, origin)
    listing = _listing(folder)
    chosen = choose({name: found.stat().st_size for name, found in listing.items()}, variant)
    by_kind: dict[Kind, tuple[str, ...]] = {
        "target": chosen.target,
        "projector": chosen.projector,
        "document": chosen.documents,
    }
    files = [
        _described(kind, name, listing[name]) for kind, names in by_kind.items() for name in names
    ]
    drafter = [_described("drafter", name, listing[name]) for name in chosen.drafter]
    return _half(folder, origin, files, drafter)


def drafter_half(path: Path, origin: Origin | None = None) -> Half:
    """The drafter at `path`, or in its folder `drafter`; errors as of a target."""
    folder, variant = _place(path)
    folder = folder / "drafter" if (folder / "drafter").is_dir() else folder
    listing = _listing(folder)
    names = [variant] if variant else sorted(listing)
    files = [_described("drafter", name, listing[name]) for name in names]
    return Half(tuple(files), origin or _origin(folder, files))


def _two_folders(folder: Path, origin: Origin | None) -> Half:
    files = _all("target", folder / "target")
    documents = [folder / name for name in ("LICENSE", "README.md")]
    files += [_described("document", path.name, path) for path in documents if path.is_file()]
    drafter = folder / "drafter"
    return _half(folder, origin, files, _all("drafter", drafter) if drafter.is_dir() else [])


def _all(kind: Kind, folder: Path) -> list[SourceFile]:
    return [_described(kind, name, path) for name, path in _listing(folder).items()]


def _half(
    folder: Path,
    origin: Origin | None,
    files: Sequence[SourceFile],
    drafter: Sequence[SourceFile],
) -> Half:
    origin = origin or _origin(folder, [*files, *drafter])
    return Half(tuple(files), origin, drafter=Half(tuple(drafter), origin) if drafter else None)


def _origin(folder: Path, files: Iterable[SourceFile]) -> Origin:
    """A directory has no commit: its revision is a hash over its files."""
    lines = [f"{file.kind}/{file.name} {file.entry.digest}" for file in files]
    revision = digest_of("\n".join(sorted(lines)).encode()).removeprefix("sha256:")[:40]
    return Origin(f"directory:{folder.name}", revision)


def _path(reference: Reference) -> Path:
    return Path(reference.place).expanduser()


def _place(path: Path) -> tuple[Path, str | None]:
    """The folder, and the file in it when the path names one.

    Raises:
        ModelNotFound: it is neither.
    """
    if path.is_dir():
        return path, None
    if path.is_file() and path.suffix.lower() == _GGUF:
        return path.parent, path.name
    raise ModelNotFound(
        f"{path} is neither a directory nor a GGUF file.", fix="Check the path in FROM or DRAFT."
    )


def _listing(folder: Path) -> dict[str, Path]:
    """Files that may be part of a model; links are followed once, to regular files."""
    try:
        found = {path.name: path.resolve() for path in folder.iterdir()}
    except OSError as error:
        raise PullFailed(f"{folder} cannot be read: {error.strerror}.") from error
    return {
        name: path
        for name, path in sorted(found.items())
        if safe_file_name(name) and wanted_file(name) and path.is_file()
    }


def _described(kind: Kind, name: str, path: Path) -> SourceFile:
    try:
        with path.open("rb") as file:
            hexed = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise PullFailed(f"{name} cannot be read: {error.strerror}.") from error
    entry = FileEntry(Digest(f"sha256:{hexed}"), ByteCount(size))
    return SourceFile(kind, name, entry, Local(path))
