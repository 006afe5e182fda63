"""What a hub knows of a repository: files with hashes, commits, and the JSON it says of them."""

import hashlib
import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LFS_BYTES = 10 << 20  # a git server keeps smaller files itself
LFS_SUFFIXES = (".safetensors", ".gguf", "tokenizer.json", ".bin", ".pt")
_BLOCK = 8 << 20


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file, in memory or on the disk; large and binary ones are LFS, as on the real hub."""

    name: str
    content: bytes | Path
    size: int
    sha256: str
    blob_id: str  # git's sha1 over the content, or over the LFS pointer

    @classmethod
    def of(cls, name: str, content: bytes | Path, sha256: str | None = None) -> "HubFile":
        """The file with its hashes; `sha256` spares hashing one that is known."""
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        sha256 = sha256 or _hash(hashlib.sha256(), content)
        if size > LFS_BYTES or name.endswith(LFS_SUFFIXES):
            pointer = _pointer(sha256, size)
            return cls(name, content, size, sha256, _git_blob(pointer, len(pointer)))
        return cls(name, content, size, sha256, _git_blob(content, size))

    @property
    def lfs(self) -> bool:
        """Whether the hub redirects its bytes to the CDN and knows its sha256."""
        return self.size > LFS_BYTES or self.name.endswith(LFS_SUFFIXES)

    @property
    def etag(self) -> str:
        """As the hub gives it: the sha256 of an LFS file, git's name of any other."""
        return f'"{self.sha256 if self.lfs else self.blob_id}"'


def _blocks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _hash(algorithm: Any, content: bytes | Path) -> str:
    for block in _blocks(content):
        algorithm.update(block)
    return algorithm.hexdigest()


def _git_blob(content: bytes | Path, size: int) -> str:
    return _hash(hashlib.sha1(f"blob {size}\0".encode()), content)


def _pointer(sha256: str, size: int) -> bytes:
    lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{sha256}", f"size {size}")
    return "\n".join((*lines, "")).encode()


@dataclass(slots=True)
class HubRepository:
    """A repository: branches point to commits, commits hold files by name."""

    id: str
    gated: bool = False
    private: bool = False
    info: dict[str, Any] = field(default_factory=dict)  # added to what the API says of it
    commits: dict[str, dict[str, HubFile]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Mapping[str, HubFile]) -> str:
        """The branch points to a new commit that holds exactly `files`."""
        names = json.dumps([self.id, branch, sorted((n, f.sha256) for n, f in files.items())])
        commit = hashlib.sha1(names.encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def find(self, revision: str) -> str | None:
        """The commit of a branch's or a commit's name."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


def model_info(repository: HubRepository, commit: str, blobs: bool) -> dict[str, Any]:
    """The body of `/api/models/{repo}/revision/{revision}`."""
    files = repository.commits[commit].values()
    return {
        **summary(repository),
        "sha": commit,
        "siblings": [_sibling(file, blobs) for file in files],
        "usedStorage": sum(file.size for file in files),
        **repository.info,
    }


def summary(repository: HubRepository) -> dict[str, Any]:
    """One repository in the list of `/api/models?search=`."""
    return {
        "_id": hashlib.sha1(repository.id.encode()).hexdigest()[:24],
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.id.split("/")[0],
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 12,
        "likes": 3,
        "tags": repository.info.get("tags", ["safetensors", "gemma4"]),
        "lastModified": "2026-04-02T10:00:00.000Z",
        "createdAt": "2026-04-01T10:00:00.000Z",
        "pipeline_tag": repository.info.get("pipeline_tag", "text-generation"),
        "library_name": "transformers",
    }


def safetensors(repository: HubRepository) -> dict[str, Any]:
    """How many numbers of each type are in the main branch's weights, as `expand` has it."""
    counts: dict[str, int] = {}
    for file in repository.commits[repository.branches["main"]].values():
        if file.name.endswith(".safetensors"):
            for name, tensor in _tensors(file.content).items():
                if name != "__metadata__":
                    kind = tensor["dtype"]
                    counts[kind] = counts.get(kind, 0) + math.prod(tensor["shape"])
    told = {"parameters": counts, "total": sum(counts.values())}
    return {"safetensors": told} if counts else {}


def _tensors(content: bytes | Path) -> dict[str, Any]:
    """The header of a safetensors file; tests also serve bytes that are none."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        try:
            header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        except ValueError:
            return {}
        return header


def _sibling(file: HubFile, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.name}
    plain = {"rfilename": file.name, "size": file.size, "blobId": file.blob_id}
    pointer = len(_pointer(file.sha256, file.size))
    lfs = {"sha256": file.sha256, "size": file.size, "pointerSize": pointer}
    return {**plain, "lfs": lfs} if file.lfs else plain


def tree_entry(file: HubFile) -> dict[str, Any]:
    """One file of `/api/models/{repo}/tree/{revision}` and of `paths-info`."""
    plain = {"type": "file", "oid": file.blob_id, "size": file.size, "path": file.name}
    pointer = len(_pointer(file.sha256, file.size))
    lfs = {"oid": file.sha256, "size": file.size, "pointerSize": pointer}
    return {**plain, "lfs": lfs} if file.lfs else plain


def tree(files: Mapping[str, HubFile], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The entries below `folder`, folders first as names in their parent."""
    prefix = f"{folder}/" if folder else ""
    inside = [file for name, file in sorted(files.items()) if name.startswith(prefix)]
    folders = sorted({f for file in inside for f in _folders(file.name, prefix, recursive)})
    flat = [f for f in inside if recursive or "/" not in f.name.removeprefix(prefix)]
    entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": f} for f in folders]
    return entries + [tree_entry(file) for file in flat]


def _folders(name: str, prefix: str, recursive: bool) -> list[str]:
    parts = name.removeprefix(prefix).split("/")[:-1]
    every = [prefix + path for path in itertools.accumulate(parts, "{}/{}".format)]
    return every if recursive else every[:1]
