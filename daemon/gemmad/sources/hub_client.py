"""Asks a hub, through huggingface_hub: what a repository holds, small files, what a search finds.

The library gives the session, addresses, the token and the meaning of errors. Answers are bounded
in bytes and in time, since a hub is not trusted; large files are fetched elsewhere, byte by byte
hashed.
"""

import hashlib
import importlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import quote, urljoin

from gemmad.api.errors import GemmaError, PullFailed
from gemmad.sources.hub_answers import (
    Found,
    HubFile,
    Listing,
    lacks_facts,
    named,
    nonsense,
    read_listing,
    read_search,
    read_tree,
)
from gemmad.sources.hub_session import bounded
from gemmad.sources.hub_trouble import Trouble

LISTING_BYTES = 4 << 20  # of real ones the largest has a tenth of it
_TIMEOUT_S = 30.0  # for a connection, and for any further byte
_MOST_PAGES = 20
_SEARCH_LIMIT = 40
T = TypeVar("T")


class HubClient:
    """One hub; methods block. May be used by several threads."""

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`None`: as the environment says (HF_ENDPOINT, HF_TOKEN, the token's file)."""
        hub = importlib.import_module("huggingface_hub")
        self._hub = hub
        self._token: str | None = token or hub.get_token()
        self._endpoint: str = hub.HfApi(endpoint=endpoint, token=False).endpoint
        self._session = bounded(hub.utils.get_session())
        self._trouble = Trouble(hub.errors, self._endpoint, token=self._token is not None)
        self._sleep = sleep

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
        place = f"{self._endpoint}/api/models/{quote(repository)}"
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        data, _ = self._json(repository, f"{place}{at}?blobs=true")
        found = read_listing(repository, data)
        if lacks_facts(found):
            files = named(repository, self._tree(repository, f"{place}/tree/{found.commit}"))
            found = Listing(repository, found.commit, files, found.base_models, found.licence)
        return found

    def read(self, listing: Listing, file: HubFile) -> bytes:
        """The bytes of a small file, checked against its size and git's hash.

        Raises:
            PullFailed: it could not be fetched, or is not what the listing says.
        """
        data, _ = self._asked(listing.repository, self.url(listing, file), file.size)
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

    def search(self, text: str) -> list[Found]:
        """Repositories whose names hold the text, most downloaded first.

        Raises:
            PullFailed: the hub could not be asked.
        """
        query = f"search={quote(text, safe='')}&limit={_SEARCH_LIMIT}&sort=downloads"
        url = f"{self._endpoint}/api/models?{query}&direction=-1&expand[]=safetensors"
        return read_search(self._json(f"a search for {text[:60]!r}", url)[0])

    def _tree(self, repository: str, url: str) -> Iterator[HubFile]:
        """The files of a repository page by page."""
        page = f"{url}?recursive=true"
        for _ in range(_MOST_PAGES):
            data, following = self._json(repository, page)
            yield from read_tree(repository, data)
            if following is None:
                return
            page = following
        raise nonsense(repository, "its list of files does not end")

    def _json(self, what: str, url: str) -> tuple[bytes, str | None]:
        """The answer's bytes, and where it goes on: on the hub itself, or not at all."""
        data, following = self._asked(what, url, LISTING_BYTES)
        if following is not None:
            following = urljoin(url, following)
            if not following.startswith(f"{self._endpoint}/"):
                raise nonsense(what, "it goes on at another host")
        return data, following

    def _asked(self, what: str, url: str, most: int) -> tuple[bytes, str | None]:
        """At most so many bytes, and the link to the next page; trouble that passes is waited for.

        Raises:
            GemmaError: for people.
        """
        for pause in self._trouble.pauses():
            try:
                return self._get(what, url, most)
            except GemmaError:
                raise
            except Exception as error:  # the library's HTTP client has its own root of errors
                wait_s = self._trouble.wait(error, pause)
                if wait_s is None:
                    raise self._trouble.told(what, error) from error
            self._sleep(wait_s)
        raise AssertionError("the last pause ends in an error")

    def _get(self, what: str, url: str, most: int) -> tuple[bytes, str | None]:
        headers = self._hub.utils.build_hf_headers(token=self._token or False)
        with self._session.stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response:
            self._hub.utils.hf_raise_for_status(response)
            received = bytearray()
            for chunk in response.iter_bytes():
                received += chunk
                if len(received) > most:
                    raise nonsense(what, f"an answer is longer than {most} bytes")
            link: dict[str, Any] = response.links.get("next") or {}
            return bytes(received), link.get("url")
