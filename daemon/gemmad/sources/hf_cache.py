"""Files that Hugging Face's own cache on this machine already holds, by their hash.

hub/models--OWNER--REPO/blobs/<sha256 or git hash>   a file's bytes
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_root(env: Mapping[str, str] = os.environ) -> Path:
    """Where the cache is: `HF_HUB_CACHE`, else below `HF_HOME` or the user's cache directory."""
    if value := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"):
        return Path(value).expanduser()
    home = env.get("HF_HOME")
    base = Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return (Path(home) if home else base).expanduser() / "hub"


def cached(sha256: str, root: Path | None = None) -> tuple[Path, ...]:
    """Every copy of the file with that hash, as its name says; who takes one hashes it first."""
    if not _SHA256.fullmatch(sha256):
        return ()
    found = (root or cache_root()).glob(f"models--*/blobs/{sha256}")
    return tuple(path for path in found if path.is_file() and not path.is_symlink())
