"""Takes tensors out of a checkpoint, moved and converted, and counts their bytes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gemmarunner.models.checkpoint import EMBEDDINGS, Checkpoint
from gemmarunner.models.pagecache import PageReader
from gemmarunner.models.readahead import ReadAhead
from gemmarunner.models.weights import Matrix, Progress, Table, Take

# Rows are looked up in it, so on a CPU it stays on disk until one is.
_LOOKED_UP = "embed_tokens_per_layer.weight"


class TensorReader:
    """A `Take` of one checkpoint; close it when the model is built."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        prefix: str,
        device: str,
        dtype: torch.dtype | None,
        progress: Progress | None,
    ) -> None:
        places = checkpoint.places(prefix)
        self.device = torch.device(device)
        table = next((p.dtype for p in places if p.name.endswith(EMBEDDINGS)), torch.float32)
        self.dtype = dtype or table
        self._checkpoint = checkpoint
        self._progress = progress or (lambda done, total: None)
        self._total = sum(place.nbytes for place in places)
        self._done = 0
        self._ahead: ReadAhead | None = None
        self._pages: PageReader | None = None
        try:
            if self.device.type == "cpu":
                self._pages = PageReader([p for p in places if not p.name.endswith(_LOOKED_UP)])
            else:
                self._ahead = ReadAhead(places, self.device)
        except OSError as error:
            raise checkpoint.unreadable(places[0].name, error) from error

    def __enter__(self) -> "TensorReader":
        return self

    def __exit__(self, *_: object) -> None:
        for reader in (self._ahead, self._pages):
            if reader is not None:
                reader.close()

    def take(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        tensor = self._stored(name, shape)
        self._done += tensor.nbytes
        self._progress(self._done, self._total)
        converts = tensor.is_floating_point() and not stored
        return tensor.to(self.device, self.dtype if converts else None)

    def _stored(self, name: str, shape: tuple[int, ...]) -> Tensor:
        place = self._checkpoint.place(name, shape)
        if self._pages is not None:
            if not name.endswith(_LOOKED_UP):
                self._pages.walked(place.nbytes)
            return self._checkpoint.read(name, shape)
        assert self._ahead is not None
        try:
            return self._ahead.get(name).view(place.dtype).view(shape)
        except OSError as error:
            raise self._checkpoint.unreadable(name, error) from error


class StoredMatrices:
    """Takes through `take`, but matrices in the dtype they are stored in: who multiplies widens."""

    def __init__(self, take: Take) -> None:
        self._take = take

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        return self._take(name, shape, stored=stored)

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        """As it is stored."""
        return self._take(name, shape, stored=True)

    def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
        """As they are stored."""
        return iter(self._take(name, shape, stored=True))

    def table(self, name: str, shape: tuple[int, int]) -> Table:
        """As it is stored."""
        return self._take(name, shape, stored=True)
