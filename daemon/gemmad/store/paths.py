"""The one place that turns digests and model names, which strangers choose, into paths.

<root>/FORMAT                             which layout this is, see layout.py
<root>/ingest/<hex>.part                  being written in chunks, see journal.py
<root>/ingest/<hex>.journal               which chunks of it are written
<root>/ingest/<hex>.new                   being written in one go
<root>/blobs/sha256/<2 hex>/<64 hex>      whole, mode 0444
<root>/shared/<hex>.json                  facts of a blob that is another program's file too
<root>/quarantine/<hex>                   was a blob, and is not what its name says
<root>/manifests/<name parts>/<tag>.json  linked last, unlinked first
<root>/manifests/.ingest.json             a manifest being written
"""

from pathlib import Path

from gemmad.api.errors import BadRequest
from gemmad.core import Digest, ModelName, digest, digest_hex

_SUFFIX = ".json"
_PART, _JOURNAL, _NEW = ".part", ".journal", ".new"


class StorePaths:
    """Paths under one store root; nothing it returns lies outside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.format = root / "FORMAT"
        self.format_part = root / ".FORMAT.new"
        self.ingest = root / "ingest"
        self.blobs = root / "blobs" / "sha256"
        self.manifests = root / "manifests"
        self.shared_facts = root / "shared"
        self.quarantine = root / "quarantine"
        self.manifest_part = self.manifests / ".ingest.json"  # no name part starts with a dot

    def blob(self, value: Digest) -> Path:
        """Where the blob lives once it is whole.

        Raises:
            BadRequest: not a digest.
        """
        hexed = digest_hex(digest(value))
        return self.blobs.joinpath(hexed[:2], hexed)

    def part(self, value: Digest) -> Path:
        """Where the blob is written chunk by chunk before it is whole. Errors as of `blob`."""
        return self._in_ingest(value, _PART)

    def journal(self, value: Digest) -> Path:
        """Where the chunks of the part that are written are noted. Errors as of `blob`."""
        return self._in_ingest(value, _JOURNAL)

    def new(self, value: Digest) -> Path:
        """Where the blob is written from its first byte to its last. Errors as of `blob`."""
        return self._in_ingest(value, _NEW)

    def ingested(self, value: Digest) -> tuple[Path, ...]:
        """All places where the blob may lie unfinished. Errors as of `blob`."""
        return tuple(self._in_ingest(value, suffix) for suffix in (_PART, _JOURNAL, _NEW))

    def shared(self, value: Digest) -> Path:
        """Where the facts of a blob shared with another program are. Errors as of `blob`."""
        return self.shared_facts / f"{digest_hex(digest(value))}{_SUFFIX}"

    def quarantined(self, value: Digest) -> Path:
        """Where the blob goes when it is found damaged. Errors as of `blob`."""
        return self.quarantine / digest_hex(digest(value))

    def digest_in_ingest(self, name: str) -> Digest | None:
        """The digest of a blob being written under this name; None for a stranger's file."""
        hexed, dot, suffix = name.partition(".")
        return _digest(hexed) if f"{dot}{suffix}" in (_PART, _JOURNAL, _NEW) else None

    def digest_of_blob(self, path: Path) -> Digest | None:
        """The digest of the blob that lies at `path`; None for a stranger's file."""
        value = _digest(path.name)
        return value if value and self.blob(value) == path else None

    def digest_in_quarantine(self, name: str) -> Digest | None:
        """The digest of the damaged blob of this name; None for a stranger's file."""
        return _digest(name)

    def manifest(self, name: ModelName) -> Path:
        """Where the manifest of `name` lives; names that differ only in case share it.

        Raises:
            BadRequest: not a valid name.
        """
        key = ModelName.parse(str(name)).key  # a ModelName built by hand is checked here again
        return self.manifests.joinpath(*key.parts) / f"{key.tag}{_SUFFIX}"

    def name_of(self, path: Path) -> ModelName | None:
        """The name whose manifest lies at `path`; None for a file that is no manifest."""
        parts = path.relative_to(self.manifests).parts
        if len(parts) < 2 or not parts[-1].endswith(_SUFFIX):
            return None
        try:
            return ModelName.parse(f"{'/'.join(parts[:-1])}:{parts[-1].removesuffix(_SUFFIX)}")
        except BadRequest:
            return None

    def _in_ingest(self, value: Digest, suffix: str) -> Path:
        return self.ingest / f"{digest_hex(digest(value))}{suffix}"


def _digest(hexed: str) -> Digest | None:
    try:
        return digest(f"sha256:{hexed}")
    except BadRequest:
        return None
