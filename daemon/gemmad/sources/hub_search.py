"""What a search of a hub offers: its Gemma 4 targets, and what a pull of each would bring.

The hub tells what safetensors take. For what it does not tell (GGUF, a drafter that the search did
not find) repositories are listed, side by side and not for long: a size may stay unknown.
"""

import re
import threading
import time
from collections.abc import Iterator

from gemmad.api.errors import BadRequest, GemmaError
from gemmad.core import HUB_HOST, ByteCount, ModelName
from gemmad.sources.catalogue import Offer, Sizes
from gemmad.sources.choice import choose
from gemmad.sources.hub_answers import Found, Listing
from gemmad.sources.hub_client import HubClient

MOST_OFFERS = 20
_LISTINGS_S = 5.0
_ASSISTANT = "-assistant"
_WEIGHTS = (".safetensors", ".gguf")


def assistants(repository: str) -> Iterator[str]:
    """Where the drafter of a repository would be, nearest first."""
    name = repository.removesuffix("-GGUF").removesuffix("-gguf")
    if re.search(r"-qat-", name):
        yield f"{re.sub(r'-unquantized$', '', name)}-unquantized{_ASSISTANT}"
        yield re.sub(r"-qat-.*$", "", name) + _ASSISTANT
    else:
        yield name + _ASSISTANT


class HubSearch:
    """One search; `offers` blocks."""

    def __init__(self, client: HubClient) -> None:
        self._client = client
        self._sizes: dict[str, tuple[int, int]] = {}  # target and drafter bytes by repository

    def offers(self, text: str) -> list[Offer]:
        """Gemma 4 repositories whose names hold the text.

        Raises:
            PullFailed: the hub could not be asked.
        """
        query = text if "gemma" in text.lower() else f"gemma-4 {text}".strip()
        found = self._client.search(query)
        targets = [(one, name) for one in found if (name := _name(one))][:MOST_OFFERS]
        self._measure([one for one, _ in targets], {o.repository: o.weight_bytes for o in found})
        return [self._offer(one, name) for one, name in targets]

    def _measure(self, targets: list[Found], told: dict[str, int | None]) -> None:
        """What can be known within `_LISTINGS_S` is in `_sizes`."""
        threads = [
            threading.Thread(target=self._measured, args=(one, told), daemon=True)
            for one in targets
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + _LISTINGS_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _measured(self, one: Found, told: dict[str, int | None]) -> None:
        target, drafter = one.weight_bytes or 0, 0
        if not target and (listing := self._listing(one.repository)):
            target, drafter = _taken(listing)
        if not drafter:
            drafter = self._assistant(one.repository, told)
        self._sizes[one.repository] = target, drafter

    def _assistant(self, repository: str, told: dict[str, int | None]) -> int:
        for beside in assistants(repository):
            if size := told.get(beside):
                return size
            if beside not in told and (listing := self._listing(beside)):
                return _taken(listing)[0]
        return 0

    def _listing(self, repository: str) -> Listing | None:
        try:
            return self._client.listing(repository, None)
        except GemmaError:
            return None  # not there, gated, or slow: its size is not known

    def _offer(self, one: Found, name: ModelName) -> Offer:
        target, drafter = (ByteCount(size) for size in self._sizes.get(one.repository, (0, 0)))
        return Offer(name, "A repository of the hub.", "", Sizes(target, drafter, target))


def _name(one: Found) -> ModelName | None:
    lower = one.repository.lower()
    if "gemma-4" not in lower or lower.endswith(_ASSISTANT):
        return None
    try:
        return ModelName.parse(f"{HUB_HOST}/{one.repository}")
    except BadRequest:
        return None


def _taken(listing: Listing) -> tuple[int, int]:
    """Bytes of the weights that a pull would take, target and drafter; 0: there are none."""
    sizes = {name: file.size for name, file in listing.files.items()}
    try:
        chosen = choose(sizes, None)
    except GemmaError:
        return 0, 0
    target = [n for n in (*chosen.target, *chosen.projector) if n.endswith(_WEIGHTS)]
    return sum(sizes[name] for name in target), sum(sizes[name] for name in chosen.drafter)
