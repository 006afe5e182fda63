"""Asks a hub, through huggingface_hub: what a repository holds, small files, what a search finds.

The library gives metadata, addresses and the token. Answers are bounded in bytes and in time, since
a hub is not trusted; large files are fetched elsewhere, byte by byte hashed.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from gemmad.api.errors import GemmaError, ModelNotFound, PullFailed

MAX_ANSWER_BYTES = 16 << 20
_TIMEOUT_S = 30.0
_SEARCH_LIMIT = 20
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


class HubClient:
    """One hub; methods block."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        """`None`: as the environment says (HF_ENDPOINT, HF_TOKEN, the token's file)."""
        hub = importlib.import_module("huggingface_hub")
        self._hub = hub
        self._token: str | None = token or hub.get_token()
        self._api = hub.HfApi(endpoint=endpoint, token=self._token or False)
        self._endpoint: str = self._api.endpoint
        self._session = _bounded(hub.utils.get_session())

    @property
    def token(self) -> str | None:
        """What the hub itself, and nobody else, is shown."""
        return self._token

    def listing(self, repository: str, revision: str | None) -> Listing:
        """What the repository holds at the revision's commit.

        Raises:
            ModelNotFound: no such repository or revision.
            PullFailed: the hub could not be asked, refused, or answered nonsense.
        """
        info = self._asked(
            repository,
            lambda: self._api.model_info(
                repository, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
            ),
        )
        card = info.card_data or {}
        base = card.get("base_model") or []
        licence = card.get("license")
        return Listing(
            repository=repository,
            commit=_commit(info.sha),
            files={file.name: file for file in map(_file, info.siblings or ())},
            base_models=tuple(b for b in ([base] if isinstance(base, str) else base) if b),
            licence=licence if isinstance(licence, str) else None,
        )

    def read(self, listing: Listing, file: HubFile) -> bytes:
        """The bytes of a small file, checked against its size and git's hash.

        Raises:
            PullFailed: it could not be fetched, or is not what the listing says.
        """
        headers = self._hub.utils.build_hf_headers(token=self._token or False)
        url = self.url(listing, file)
        data = self._asked(
            listing.repository, lambda: b"".join(self._streamed(url, headers, file.size))
        )
        git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if git != file.blob_id:
            raise PullFailed(
                f"{file.name} of {listing.repository} did not arrive as the hub lists it.",
                fix="Pull again.",
            )
        return data

    def url(self, listing: Listing, file: HubFile) -> str:
        """Where the file is at the listing's commit."""
        return str(
            self._hub.hf_hub_url(
                listing.repository, file.name, revision=listing.commit, endpoint=self._endpoint
            )
        )

    def search(self, text: str) -> list[str]:
        """Repositories whose names hold the text, most downloaded first.

        Raises:
            PullFailed: the hub could not be asked.
        """

        def found() -> list[str]:
            models = self._api.list_models(search=text, limit=_SEARCH_LIMIT, sort="downloads")
            return [model.id for model in models]

        return self._asked(text, found)

    def _streamed(self, url: str, headers: dict[str, str], size: int) -> Iterator[bytes]:
        received = 0
        with self._session.stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            self._hub.utils.hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                received += len(chunk)
                if received > size:
                    raise PullFailed("A file of the hub is longer than its listing says.")
                yield chunk

    def _asked(self, what: str, ask: Callable[[], T]) -> T:
        """The answer, or an error for people."""
        errors = self._hub.errors
        try:
            return ask()
        except GemmaError:
            raise
        except errors.GatedRepoError as error:
            raise PullFailed(
                f"{what} is gated: its licence must be accepted first.",
                fix=f"Accept it at {self._endpoint}/{what}, then set HF_TOKEN to your token.",
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise ModelNotFound(
                f"The hub has no repository {what}, or it is private.",
                fix="Check the spelling; for a private one set HF_TOKEN to your token.",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ModelNotFound(f"{what} has no such revision.") from error
        except errors.OfflineModeIsEnabled as error:
            raise PullFailed(
                f"{what} cannot be asked for: HF_HUB_OFFLINE is set.", fix="Unset it to pull."
            ) from error
        except errors.HfHubHTTPError as error:
            raise self._refused(what, error) from error
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise self._unreachable(what, error) from error
        except Exception as error:  # the library's HTTP client has its own root of errors
            raise self._unreachable(what, error) from error

    def _refused(self, what: str, error: Any) -> PullFailed:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 429:
            return PullFailed(
                f"The hub asks to slow down (429 for {what}).", fix="Wait a minute and pull again."
            )
        return PullFailed(f"The hub answered {status} for {what}.", fix="Pull again later.")

    def _unreachable(self, what: str, error: Exception) -> PullFailed:
        return PullFailed(
            f"{self._endpoint} could not be asked for {what}: {type(error).__name__}.",
            fix="Is this machine online? HF_ENDPOINT names another hub.",
        )


def _file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    return HubFile(
        name=str(sibling.rfilename),
        size=int((lfs.size if lfs else sibling.size) or 0),
        blob_id=str(sibling.blob_id or ""),
        sha256=str(lfs.sha256) if lfs else None,
    )


def _commit(sha: object) -> str:
    if not isinstance(sha, str) or not sha.isalnum():
        raise PullFailed("The hub did not say which commit it answers for.", fix="Pull again.")
    return sha


def _bounded(session: Any) -> Any:
    """The library's session, whose answers end at `MAX_ANSWER_BYTES` and are not compressed."""
    if getattr(session, "_gemma_bounded", False):
        return session
    stream_type = importlib.import_module(type(session).__module__.partition(".")[0]).SyncByteStream

    class Limited(stream_type):  # type: ignore[misc, valid-type]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            received = 0
            for chunk in self._stream:
                received += len(chunk)
                if received > MAX_ANSWER_BYTES:
                    raise PullFailed("The hub's answer is too long to be believed.")
                yield chunk

        def close(self) -> None:
            self._stream.close()

    def plain(request: Any) -> None:
        request.headers["Accept-Encoding"] = "identity"

    def bound(response: Any) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PullFailed("The hub sent a compressed answer that was not asked for.")
        response.stream = Limited(response.stream)

    hooks = session.event_hooks
    hooks["request"].append(plain)
    hooks["response"].append(bound)
    session.event_hooks = hooks
    session._gemma_bounded = True
    return session
