"""Makes a name of a Modelfile: what is sent to the daemon, and how files of this machine get there.

1. Over the Unix socket the daemon reads the files itself, by their paths.
2. Over TCP, or when it may not read them, they are uploaded and named by their digests.
"""

import os
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gemmacli.client import DaemonClient
from gemmacli.json_object import Json
from gemmacli.local_files import Place, model_files, resolve
from gemmacli.transport import Endpoint
from gemmacli.uploading import upload_all
from gemmad.api.errors import BadRequest, GemmaError, ModelNotFound, PullFailed, Refused
from gemmad.api.modelfile import NO_DRAFTER, Description, parse

DEFAULT_FILE = "Modelfile"
STDIN = "-"
_UNREADABLE = (Refused, ModelNotFound, PullFailed)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a model to be made are."""

    target: Place
    draft: Place | None
    adapter: Place | None

    @property
    def local(self) -> tuple[Place, ...]:
        """Those on this machine."""
        each = (self.target, self.draft, self.adapter)
        return tuple(place for place in each if place and place.paths)


def read_modelfile(file: str) -> tuple[Description, Path]:
    """What the Modelfile says, and the directory its relative paths start at.

    Raises:
        BadRequest: there is none, or it is not a Modelfile.
    """
    if file == STDIN:
        return parse(sys.stdin.buffer.read()), Path.cwd()
    path = Path(file).expanduser()
    try:
        return parse(path.read_bytes()), path.absolute().parent
    except OSError as error:
        raise BadRequest(
            f"The Modelfile {path} cannot be read: {error.strerror}.", fix="Name one with -f."
        ) from error


def places(description: Description, base: Path) -> Places:
    """Where FROM, DRAFT and ADAPTER lead.

    Raises:
        BadRequest: one leads nowhere, or DRAFT where FROM does.
    """
    target = resolve("FROM", description.from_, base)
    assert target is not None  # a description has a FROM
    draft = resolve("DRAFT", description.drafts, base)
    if draft and {path.resolve() for path in draft.paths} & {p.resolve() for p in target.paths}:
        raise BadRequest("DRAFT names the same files as FROM.", fix="Leave DRAFT out.")
    adapter = resolve("ADAPTER", (description.adapter,) if description.adapter else (), base)
    if adapter and adapter.reference:
        raise BadRequest(
            f"ADAPTER names {adapter.reference}, which is no directory here.",
            fix="Download the adapter and name its directory.",
        )
    return Places(target, draft, adapter)


def create(
    client: DaemonClient, name: str, description: Description, found: Places, packing: Json
) -> Iterator[Json]:
    """Progress records until the name is made.

    Raises:
        GemmaError: the daemon's, or a file cannot be read.
    """
    body = {"model": name, **_said(description), **packing}
    if found.local and client.where.socket and _speak_for_themselves(found):  # 1
        try:
            yield from client.create({**body, **_by_path(found)})
        except _UNREADABLE as error:
            if not _may_lack_permission(error, client.where):
                raise
        else:
            return
    yield from _created_of_uploads(client, body, found)  # 2


def _created_of_uploads(client: DaemonClient, body: Json, found: Places) -> Iterator[Json]:
    sources = yield from _uploaded(client, found, refused=body.get("draft") == NO_DRAFTER)
    yield from client.create({**body, **sources})


def _said(description: Description) -> Json:
    """The fields of a request that need no files."""
    fields: Json = {
        "draft": NO_DRAFTER if description.draft == NO_DRAFTER else None,
        "template": description.chat_template,
        "system": description.system,
        "license": list(description.licences) or None,
        "parameters": description.values or None,
        "messages": [{"role": role, "content": text} for role, text in description.messages],
    }
    return {key: value for key, value in fields.items() if value not in (None, [])}


def _speak_for_themselves(found: Places) -> bool:
    return all(place.single for place in found.local)


def _by_path(found: Places) -> Json:
    fields = _reference("from", found.target) | _reference("draft", found.draft)
    fields |= _reference("adapter", found.adapter)
    return fields


def _reference(field: str, place: Place | None) -> Json:
    if place is None:
        return {}
    return {field: place.reference} if place.reference else {f"{field}_path": str(place.single)}


def _may_lack_permission(error: GemmaError, where: Endpoint) -> bool:
    """Whether the daemon may have failed only because it runs as another user."""
    assert where.socket is not None
    try:
        return isinstance(error, Refused) or where.socket.stat().st_uid != os.getuid()
    except OSError:
        return False


def _uploaded(client: DaemonClient, found: Places, *, refused: bool) -> Generator[Json, None, Json]:
    """The fields that name what was uploaded, and the references of what was not."""
    target, draft = found.target, found.draft
    halves = _two_folders(target)
    if halves is not None:
        target = Place(paths=(halves[0],))
        draft = draft or (None if refused else Place(paths=(halves[1],)))
    fields = yield from _field(client, "files", "from", target)
    fields |= yield from _field(client, "draft_files", "draft", draft)
    fields |= yield from _field(client, "adapters", "adapter", found.adapter)
    return fields


def _two_folders(place: Place) -> tuple[Path, Path] | None:
    """The two halves of an exported pair."""
    folder = place.folder
    halves = (folder / "target", folder / "drafter") if folder else None
    return halves if halves and all(half.is_dir() for half in halves) else None


def _field(
    client: DaemonClient, uploaded: str, referred: str, place: Place | None
) -> Generator[Json, None, Json]:
    if place is None or place.reference:
        return _reference(referred, place)
    files: Mapping[str, Path] = model_files(place)
    digests = yield from upload_all(client, files)
    return {uploaded: digests}
