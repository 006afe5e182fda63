"""Repositories of a hub: a target by its files, and the drafter that belongs to it.

Google keeps drafters beside targets: OWNER/NAME -> OWNER/NAME-assistant. Of a quantization-aware
checkpoint (…-qat-q4_0-gguf) it is …-qat-q4_0-unquantized-assistant where there is one, else the
plain one. GGUF repositories of others keep it as mtp-*.gguf beside the target.
"""

import json
from collections.abc import Callable
from typing import Any

from gemmad.api.errors import ModelNotFound, PullFailed, Unsupported
from gemmad.core import HUB_HOST, ByteCount, FileEntry, Origin, digest, digest_of
from gemmad.formats.limits import BadFile
from gemmad.formats.shard_index import shards
from gemmad.sources.catalogue import Offer
from gemmad.sources.choice import base_name, choose, is_drafter_gguf
from gemmad.sources.half import Content, Half, Kind, Remote, SourceFile
from gemmad.sources.hf_cache import cached
from gemmad.sources.hub_answers import HubFile, Listing
from gemmad.sources.hub_client import HubClient
from gemmad.sources.hub_search import HubSearch, assistants
from gemmad.sources.reference import Reference

_INDEX = "model.safetensors.index.json"
_SMALL_BYTES = 16 << 20
_ASSISTANT = "-assistant"


class HubSource:
    """`hf.co/OWNER/REPO[:FILE-OR-QUANT][@REVISION]`."""

    def __init__(self, connect: Callable[[], HubClient] = HubClient) -> None:
        """`connect` is called when the hub is first asked: importing its library takes a while."""
        self._connect = connect
        self._connected: HubClient | None = None

    def knows(self, reference: Reference) -> bool:
        """Whether the reference is a repository of the hub."""
        return reference.scheme == "hub"

    def target(self, reference: Reference) -> Half:
        """The target there, and the drafter when the repository has one of its own."""
        listing = self._listing(reference)
        chosen = choose(_sizes(listing), reference.variant)
        groups: tuple[tuple[Kind, tuple[str, ...]], ...] = (
            ("target", chosen.target),
            ("projector", chosen.projector),
            ("document", chosen.documents),
        )
        files = [self._file(kind, listing, name) for kind, names in groups for name in names]
        _refuse_drafter(reference, files)
        _check_shards(listing, files)
        origin = _origin(reference, listing)
        drafter = tuple(self._file("drafter", listing, name) for name in chosen.drafter)
        return Half(
            files=_distinct(files),
            origin=origin,
            licence=listing.licence,
            drafter=Half(drafter, origin) if drafter else None,
            notes=(chosen.note,) if chosen.note else (),
        )

    def drafter(self, reference: Reference) -> Half:
        """The drafter there: an assistant's repository, or a GGUF drafter of a repository."""
        listing = self._listing(reference)
        ggufs = {name: file.size for name, file in listing.files.items() if is_drafter_gguf(name)}
        if ggufs and "config.json" not in listing.files:
            names = _drafter_names(ggufs, reference)
        else:
            names = choose(_sizes(listing), None).target
        files = [self._file("drafter", listing, name) for name in names]
        _refuse_target(reference, files)
        _check_shards(listing, files)
        return Half(_distinct(files), _origin(reference, listing), licence=listing.licence)

    def pair_of(self, reference: Reference, _target: Half) -> Half | None:
        """The assistant whose name belongs to the repository's, or to that of its base model."""
        for repository in assistants(reference.place):
            if found := self._drafter_or_none(repository):
                return found
        for base in self._listing(reference).base_models:
            for repository in assistants(base):
                if found := self._drafter_or_none(repository):
                    note = f"The drafter is that of {base}: a tuned target accepts less of it."
                    return Half(found.files, found.origin, found.licence, notes=(note,))
        return None

    def search(self, text: str) -> list[Offer]:
        """Gemma 4 repositories whose names hold the text, with what a pull of each would bring.

        Raises:
            PullFailed: the hub could not be asked.
        """
        return HubSearch(self._client).offers(text)

    @property
    def _client(self) -> HubClient:
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    def _listing(self, reference: Reference) -> Listing:
        return self._client.listing(reference.place, reference.revision)

    def _drafter_or_none(self, repository: str) -> Half | None:
        try:
            return self.drafter(Reference("hub", repository))
        except (ModelNotFound, Unsupported):
            return None

    def _file(self, kind: Kind, listing: Listing, name: str) -> SourceFile:
        file = listing.files[name]
        if file.sha256 is not None:
            return self._large(kind, listing, file, file.sha256)
        if file.size > _SMALL_BYTES:
            raise PullFailed(f"{name} of {listing.repository} has no hash to check it by.")
        data = self._client.read(listing, file)
        entry = FileEntry(digest_of(data), ByteCount(len(data)))
        return SourceFile(kind, base_name(name), entry, Content(data))

    def _large(self, kind: Kind, listing: Listing, file: HubFile, sha256: str) -> SourceFile:
        entry = FileEntry(digest(f"sha256:{sha256}"), ByteCount(file.size))
        remote = Remote(self._client.url(listing, file), self._client.token)
        return SourceFile(kind, base_name(file.name), entry, remote, cached(sha256))


def _sizes(listing: Listing) -> dict[str, int]:
    return {name: file.size for name, file in listing.files.items()}


def _origin(reference: Reference, listing: Listing) -> Origin:
    return Origin(str(reference), listing.commit)


def _drafter_names(ggufs: dict[str, int], reference: Reference) -> tuple[str, ...]:
    """One drafter of a GGUF repository: the one named, or the best."""
    named = [name for name in ggufs if reference.variant in (name, base_name(name))]
    plain = {f"{index}.gguf": name for index, name in enumerate(sorted(ggufs))}
    if named or len(plain) == 1:
        return tuple(named or plain.values())
    wanted = (reference.variant or "q8_0").lower()
    return tuple([name for name in ggufs if wanted in name.lower()][:1] or sorted(ggufs)[:1])


def _config(files: list[SourceFile]) -> dict[str, Any]:
    for file in files:
        if file.name == "config.json" and isinstance(file.bytes, Content):
            try:
                found = json.loads(file.bytes.data)
            except (ValueError, RecursionError) as error:
                raise PullFailed("The repository's config.json is not JSON.") from error
            return found if isinstance(found, dict) else {}
    return {}


def _is_assistant(files: list[SourceFile]) -> bool:
    return "assistant" in str(_config(files).get("model_type", ""))


def _refuse_drafter(reference: Reference, files: list[SourceFile]) -> None:
    if _is_assistant(files):
        target = reference.place.removesuffix(_ASSISTANT)
        raise Unsupported(
            f"{reference.place} is a drafter; alone it answers nothing.",
            fix=f"Pull its target, which brings it along: gemma pull {HUB_HOST}/{target}",
        )


def _refuse_target(reference: Reference, files: list[SourceFile]) -> None:
    if _config(files) and not _is_assistant(files):
        raise Unsupported(
            f"{reference.place} is not a drafter.", fix="A drafter's name ends in -assistant."
        )


def _check_shards(listing: Listing, files: list[SourceFile]) -> None:
    """Every shard the index names is in the repository."""
    for file in files:
        if file.name == _INDEX and isinstance(file.bytes, Content):
            try:
                missing = [n for n in shards(file.bytes.data) if n not in listing.files]
            except BadFile as error:
                raise PullFailed(f"{_INDEX} of {listing.repository}: {error}.") from error
            if missing:
                raise PullFailed(f"{listing.repository} lacks {missing[0]}, which its index names.")


def _distinct(files: list[SourceFile]) -> tuple[SourceFile, ...]:
    """The files, unless two folders hold one name.

    Raises:
        Unsupported: they do.
    """
    names = [(file.kind, file.name.lower()) for file in files]  # some disks know no case
    if len(set(names)) != len(names):
        raise Unsupported("The repository holds two files of one name.", fix="Name the file.")
    return tuple(files)
