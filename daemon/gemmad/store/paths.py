"""The one place that turns digests and model names, which strangers choose, into paths.

<root>/ingest/<hex>.part                  being written
<root>/blobs/sha256/<2 hex>/<64 hex>      whole, mode 0444
<root>/manifests/<name parts>/<tag>.json  linked last, unlinked first
<root>/manifests/.ingest.json             a manifest being written
"""

from pathlib import Path

from gemmad.api.errors import BadRequest
from gemmad.core import Digest, ModelName, digest, digest_hex

_SUFFIX = ".json"


class StorePaths:
    """Paths under one store root; nothing it returns lies outside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ingest = root / "ingest"
        self.blobs = root / "blobs" / "sha256"
        self.manifests = root / "manifests"
        self.manifest_part = self.manifests / ".ingest.json"  # no name part starts with a dot

    def blob(self, value: Digest) -> Path:
        """Where the blob lives once it is whole.

        Raises:
            BadRequest: not a digest.
        """
        hexed = digest_hex(digest(value))
        return self.blobs / hexed[:2] / hexed

    def part(self, value: Digest) -> Path:
        """Where the blob is written before it is whole.

        Raises:
            BadRequest: not a digest.
        """
        return self.ingest / f"{digest_hex(digest(value))}.part"

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
