"""Models that Ollama keeps on this machine: its blobs are taken over by link, nothing is fetched.

models/manifests/<host>/<namespace>/<model>/<tag>   JSON: layers with media type, digest, size
models/blobs/sha256-<64 hex>                        the layers; GGUF files, texts and JSON

Layer names end the media type: model, projector, draft, adapter, template, system, params,
messages, license. Its templates are Go's, so Gemma 4's own is used in their place.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gemmad.api.errors import BadRequest, ModelNotFound, PullFailed, Unsupported
from gemmad.core import ByteCount, FileEntry, Origin, Turn, digest, digest_hex
from gemmad.sources.half import Half, Kind, Local, Parameters, SourceFile
from gemmad.sources.reference import Reference

_HOST, _NAMESPACE = "registry.ollama.ai", "library"
_MANIFEST_BYTES = 1 << 20
_TEXT_BYTES = 1 << 20
_PARTS = 4  # host, namespace, model, tag
_FILES: dict[str, tuple[Kind, str]] = {
    "model": ("target", "model.gguf"),
    "projector": ("projector", "projector.gguf"),
    "draft": ("drafter", "drafter.gguf"),
}
# What its parameters and ours have in common; the others steer another engine.
_PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "min_p",
        "num_ctx",
        "num_predict",
        "presence_penalty",
        "repeat_last_n",
        "repeat_penalty",
        "seed",
        "stop",
        "temperature",
        "top_k",
        "top_p",
    }
)


class _Layer(msgspec.Struct, frozen=True):
    mediaType: str  # noqa: N815  (Docker's spelling)
    digest: str
    size: ByteCount

    @property
    def kind(self) -> str:
        return self.mediaType.rsplit(".", 1)[-1]


class _Manifest(msgspec.Struct, frozen=True):
    layers: tuple[_Layer, ...]


class OllamaStore:
    """One store of Ollama's, which is only read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def knows(self, reference: Reference) -> bool:
        """Whether the reference says `ollama:`."""
        return reference.scheme == "ollama"

    def names(self) -> list[str]:
        """The names in the store, as Ollama's own lists show them.

        Raises:
            ModelNotFound: there is no store.
        """
        manifests = self._root / "manifests"
        if not manifests.is_dir():  # where it was looked for is no business of a client elsewhere
            raise ModelNotFound(
                "Ollama has no store where it was looked for.",
                fix="Name its directory of blobs and manifests: gemma import ollama --store DIR",
            )
        paths = [path.relative_to(manifests).parts for path in manifests.glob("*/*/*/*")]
        return sorted(_shown(parts) for parts in paths if len(parts) == _PARTS)

    def target(self, reference: Reference) -> Half:
        """The model of that name, with its draft layer as the drafter.

        Raises:
            ModelNotFound: Ollama has no such name.
            PullFailed: its manifest or a small layer cannot be read.
            Unsupported: it is no GGUF model, or has an adapter of Ollama's.
        """
        layers = self._layers(reference)
        _refuse_others(reference, layers)
        files = [self._file(layer) for layer in layers if layer.kind in _FILES]
        origin = Origin(str(reference), digest_hex(digest(layers[0].digest))[:12])
        drafter = tuple(file for file in files if file.kind == "drafter")
        parameters, dropped = self._parameters(layers)
        return Half(
            files=tuple(file for file in files if file.kind != "drafter"),
            origin=origin,
            licence=" ".join(self._texts(layers, "license"))[:200] or None,
            parameters=parameters,
            system="\n".join(self._texts(layers, "system")) or None,
            messages=tuple(self._messages(layers)),
            drafter=Half(drafter, origin) if drafter else None,
            notes=tuple(_notes(layers, dropped)),
        )

    def drafter(self, reference: Reference) -> Half:
        """The draft layer of that name; errors as of `target`.

        Raises:
            Unsupported: the model has none.
        """
        found = self.target(reference).drafter
        if found is None:
            raise Unsupported(f"{reference} has no draft layer.")
        return found

    def pair_of(self, _reference: Reference, _target: Half) -> Half | None:
        """None: what Ollama knows of a drafter is in the model itself."""
        return None

    def _layers(self, reference: Reference) -> Sequence[_Layer]:
        path = self._root.joinpath("manifests", *_parts(reference.place))
        try:
            data = _read(path, _MANIFEST_BYTES)
            layers = msgspec.json.decode(data, type=_Manifest).layers
        except (FileNotFoundError, NotADirectoryError) as error:
            have = ", ".join(self.names()[:10]) or "no models"
            raise ModelNotFound(
                f"Ollama has no model '{reference.place}'.", fix=f"It has: {have}."
            ) from error
        except (OSError, msgspec.MsgspecError, RecursionError) as error:
            raise PullFailed(
                f"Ollama's manifest of '{reference.place}' is not readable."
            ) from error
        for layer in layers:
            digest(layer.digest)  # or BadRequest: it becomes a path
        return layers

    def _file(self, layer: _Layer) -> SourceFile:
        kind, name = _FILES[layer.kind]
        entry = FileEntry(digest(layer.digest), layer.size)
        return SourceFile(kind, name, entry, Local(self._blob(layer)))

    def _blob(self, layer: _Layer) -> Path:
        return self._root / "blobs" / f"sha256-{digest_hex(digest(layer.digest))}"

    def _texts(self, layers: Sequence[_Layer], kind: str) -> Iterator[str]:
        for layer in layers:
            if layer.kind == kind:
                try:
                    yield _read(self._blob(layer), _TEXT_BYTES).decode(errors="replace").strip()
                except OSError as error:
                    raise PullFailed(
                        f"Ollama's {kind} layer cannot be read: {error.strerror}."
                    ) from error

    def _parameters(self, layers: Sequence[_Layer]) -> tuple[Parameters, list[str]]:
        """What applies here, and the names of what does not."""
        found: dict[str, Any] = {}
        for text in self._texts(layers, "params"):
            found |= _json(text, dict[str, Any])
        kept = {key: value for key, value in found.items() if key in _PARAMETERS}
        return kept, sorted(found.keys() - kept.keys())

    def _messages(self, layers: Sequence[_Layer]) -> Iterator[Turn]:
        for text in self._texts(layers, "messages"):
            yield from _json(text, list[Turn])


def ollama_root(env: Mapping[str, str] = os.environ) -> Path:
    """Where Ollama keeps its models: `OLLAMA_MODELS`, this user's home, or the system service's."""
    if value := env.get("OLLAMA_MODELS"):
        return Path(value).expanduser()
    own = Path.home() / ".ollama" / "models"
    service = Path("/usr/share/ollama/.ollama/models")
    return service if service.is_dir() and not own.is_dir() else own


def _parts(place: str) -> tuple[str, ...]:
    """`[host/][namespace/]model[:tag]` as the four names of a manifest's path.

    Raises:
        BadRequest: a part is no plain name.
    """
    path, _, tag = place.partition(":")
    given = path.split("/")
    defaults = (_HOST, _NAMESPACE)[: max(0, 3 - len(given))]
    parts = (*defaults, *given, tag or "latest")
    plain = all(part not in ("", ".", "..") and part.isprintable() for part in parts)
    if len(parts) != _PARTS or not plain or any(set(part) & set("/\\\0") for part in parts):
        raise BadRequest(f"{place[:200]!r} is not a name of Ollama's.", fix="Use name[:tag].")
    return parts


def _shown(parts: tuple[str, ...]) -> str:
    host, namespace, model, tag = parts
    if (host, namespace) == (_HOST, _NAMESPACE):
        return f"{model}:{tag}"
    return f"{'' if host == _HOST else host + '/'}{namespace}/{model}:{tag}"


def _refuse_others(reference: Reference, layers: Sequence[_Layer]) -> None:
    kinds = {layer.kind for layer in layers}
    if "adapter" in kinds:
        raise Unsupported(
            f"{reference} has an adapter in GGUF, which is not applied here.",
            fix="Create it anew with ADAPTER and a LoRA in safetensors.",
        )
    if "model" not in kinds:
        raise Unsupported(
            f"{reference} is not a GGUF model (its layers: {', '.join(sorted(kinds))}).",
            fix="Pull the same model here: gemma pull gemma4:e4b",
        )


def _notes(layers: Sequence[_Layer], dropped: list[str]) -> Iterator[str]:
    if any(layer.kind == "template" for layer in layers):
        yield "Ollama's template is in Go's language: Gemma 4's own template is used."
    if dropped:
        yield f"Not taken over, since they steer another engine: {', '.join(dropped)}."


def _json(text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PullFailed(f"A layer of Ollama's is not readable: {error}.") from error


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)
