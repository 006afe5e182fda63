"""The daemon's own nouns: digests, model names and the manifest that binds a pair.

A manifest file on disk is one JSON object; `sha256` covers the bytes of `manifest` exactly as they
stand in the file, so a flipped bit or a cut-off write is seen before anything is believed:

    {"sha256": "<64 hex>", "manifest": {"schema": 1, "name": "nano:latest", "target": {...}, ...}}
"""

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NewType

import msgspec

from gemmad.api.errors import BadRequest, StoreBroken

Digest = NewType("Digest", str)  # "sha256:" and 64 lower-case hex digits
ByteCount = NewType("ByteCount", int)

SCHEMA = 2  # what is written; 1 had no adapter, projector, messages, notes and no drafter's origin
READABLE = (1, 2)
DEFAULT_TAG = "latest"
MAX_PART_CHARS = 80
HUB_HOST = "hf.co"  # the only name of three parts: hf.co/owner/repository

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PART = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_PART_CHARS - 1}}}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
# Windows opens a device for these, whatever follows the first dot.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))]
)


def digest(text: str) -> Digest:
    """`text` as a digest.

    Raises:
        BadRequest: it is not `sha256:` and 64 lower-case hex digits.
    """
    if not _DIGEST.fullmatch(text):
        raise BadRequest(f"{text[:80]!r} is not a digest.", fix="Use sha256:<64 hex digits>.")
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    """The digest of `data`."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def digest_hex(value: Digest) -> str:
    """The 64 hex digits of a digest."""
    return value.removeprefix("sha256:")


@dataclass(frozen=True, slots=True)
class ModelName:
    """`[namespace/]model[:tag]` or `hf.co/owner/repo[:tag]`; each part is safe as a file name."""

    parts: tuple[str, ...]
    tag: str = DEFAULT_TAG

    @classmethod
    def parse(cls, text: str) -> "ModelName":
        """The name written in `text`, the tag `latest` when it has none.

        Raises:
            BadRequest: the text does not follow the grammar.
        """
        path, colon, tag = text.partition(":")
        name = cls(tuple(path.split("/")), tag if colon else DEFAULT_TAG)
        if not name._valid:
            raise BadRequest(
                f"{text[:200]!r} is not a model name.",
                fix="Use [namespace/]name[:tag] of letters, digits and '._-', e.g. gemma4:e4b.",
            )
        return name

    @property
    def _valid(self) -> bool:
        most = 3 if self.parts[0].lower() == HUB_HOST else 2
        return len(self.parts) <= most and all(map(_safe_part, (*self.parts, self.tag)))

    @property
    def key(self) -> "ModelName":
        """The same name in lower case: two names with equal keys are one model."""
        return ModelName(tuple(part.lower() for part in self.parts), self.tag.lower())

    @property
    def short(self) -> str:
        """The name as a person types it: without `:latest`."""
        return "/".join(self.parts) if self.tag.lower() == DEFAULT_TAG else str(self)

    def __str__(self) -> str:
        return f"{'/'.join(self.parts)}:{self.tag}"


def _safe_part(part: str) -> bool:
    if not _PART.fullmatch(part) or part.endswith("."):
        return False
    # A part ending in .json could be mistaken for the manifest file of a shorter name.
    return part.split(".")[0].lower() not in _DEVICES and not part.lower().endswith(".json")


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a pair, kept as the blob of that digest."""

    digest: Digest
    size: ByteCount


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What lists show of a target; read from its config and weight header when it is pulled."""

    family: str
    parameter_size: str
    quantization_level: str
    context_length: int
    embedding_length: int
    format: str = "safetensors"
    capabilities: tuple[str, ...] = ("completion",)


class Origin(msgspec.Struct, frozen=True):
    """Where the files came from, and the revision they are pinned to."""

    source: str
    revision: str


class Turn(msgspec.Struct, frozen=True):
    """One message that every conversation with a model begins with."""

    role: str  # system | user | assistant
    content: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A pair by digest: written by pulls and copies, read by everything that serves it.

    `dict`, so that its id is computed once.
    """

    name: str
    created: str  # RFC 3339, UTC
    target: dict[str, FileEntry]
    drafter: dict[str, FileEntry] | None = None
    drafter_parameter_size: str | None = None
    documents: dict[str, FileEntry] = {}  # LICENSE, README.md
    tokenizer: Digest
    template: Digest | None = None
    origin: Origin
    licence: str | None = None  # SPDX id or a name
    details: Details
    parameters: dict[
        str, bool | int | float | str | list[str]
    ] = {}  # sampling defaults of this model
    system: str | None = None
    info: dict[str, object] = {}  # architecture facts as Ollama's `model_info`
    schema: int = SCHEMA
    adapter: dict[str, FileEntry] | None = None  # LoRA: adapter_config.json and its weights
    projector: dict[str, FileEntry] | None = None  # image and audio towers in files of their own
    messages: tuple[Turn, ...] = ()
    notes: tuple[str, ...] = ()  # what its user should know, e.g. why it has no drafter
    reference: str = ""  # what a later pull resolves again; empty: the name
    draft: str = "auto"  # how a later pull finds the drafter: auto, none, or a reference
    drafter_origin: Origin | None = None  # None: with the target

    @property
    def files(self) -> Iterator[FileEntry]:
        """Every file the manifest binds, target first."""
        for group in self.groups.values():
            yield from group.values()

    @property
    def groups(self) -> dict[str, dict[str, FileEntry]]:
        """The groups of files by what they are, target first; each maps file names to blobs."""
        return {
            "target": self.target,
            "drafter": self.drafter or {},
            "projector": self.projector or {},
            "adapter": self.adapter or {},
            "document": self.documents or {},
        }

    @property
    def digests(self) -> frozenset[Digest]:
        """The digests of every file."""
        return frozenset(entry.digest for entry in self.files)

    @property
    def size(self) -> ByteCount:
        """Bytes of all files; a file that serves twice counts once."""
        return ByteCount(sum({entry.digest: entry.size for entry in self.files}.values()))

    @property
    def drafter_size(self) -> ByteCount:
        """Bytes of the drafter's files."""
        return ByteCount(sum(entry.size for entry in (self.drafter or {}).values()))

    @functools.cached_property
    def id(self) -> Digest:
        """Names what the pair is, whatever it is called: copies share it."""
        nameless = msgspec.structs.replace(self, name="", created="", reference="")
        return digest_of(msgspec.json.encode(nameless))


class _Envelope(msgspec.Struct, frozen=True):
    sha256: str
    manifest: msgspec.Raw


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest file."""
    body = msgspec.json.encode(manifest)
    checked = _Envelope(hashlib.sha256(body).hexdigest(), msgspec.Raw(body))
    return msgspec.json.encode(checked)


@functools.lru_cache(maxsize=64)  # every request reads its model's
def decode_manifest(data: bytes) -> Manifest:
    """The manifest in a file's bytes, checked against its own hash and for safe names.

    Raises:
        StoreBroken: the bytes are not a whole manifest of a schema this version reads.
    """
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        body = bytes(envelope.manifest)
        if hashlib.sha256(body).hexdigest() != envelope.sha256:
            raise StoreBroken("The manifest does not match its own hash.")
        manifest = msgspec.json.decode(body, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreBroken(f"The manifest is not readable: {error}.") from error
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    if manifest.schema not in READABLE:
        raise StoreBroken(
            f"The manifest has schema {manifest.schema}, this version reads up to {SCHEMA}."
        )
    for group in manifest.groups.values():
        if bad := [name for name in group if not safe_file_name(name)]:
            raise StoreBroken(f"The manifest names an unsafe file: {bad[0][:80]!r}.")
    for entry in manifest.files:
        if not _DIGEST.fullmatch(entry.digest) or entry.size < 0:
            raise StoreBroken(f"The manifest holds a bad file entry: {entry.digest[:80]!r}.")


def safe_file_name(name: str) -> bool:
    """Whether a repository's file name is plain enough to be kept: one part, no leading dot."""
    return _FILE.fullmatch(name) is not None
