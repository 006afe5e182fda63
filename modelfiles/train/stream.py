"""Rows of training data on the device, filled while the device already compiles and trains."""

import threading
import traceback
from concurrent.futures import CancelledError, Future
from typing import NamedTuple

import torch
from torch import Tensor

from train.pack import HUNDREDTHS, ROW, Counts, Rows, Shard


class Batch(NamedTuple):
    """Rows on the device, each [rows, length]: tokens i64, documents i32, weights f32."""

    tokens: Tensor
    documents: Tensor
    weights: Tensor


class DeviceRows(NamedTuple):
    """Packed rows as they are kept on the device, in the small types of `Rows`."""

    tokens: Tensor
    documents: Tensor
    weights: Tensor

    def at(self, chosen: slice | Tensor) -> Batch:
        """Return the chosen rows in the types that the models read."""
        tokens, documents, weights = (part[chosen] for part in self)
        return Batch(tokens.long(), documents.int(), weights.float() / HUNDREDTHS)


def to_device(rows: Rows, device: torch.device) -> DeviceRows:
    """Return the rows on the device."""
    return DeviceRows(*(torch.from_numpy(part).to(device) for part in rows))


def _empty_rows(capacity: int, device: torch.device) -> DeviceRows:
    types = (torch.int16, torch.uint8, torch.uint8)
    return DeviceRows(*(torch.zeros(capacity, ROW, dtype=t, device=device) for t in types))


class RowStream:
    """Rows in the order they are made, on the device; once all are used, again in random order."""

    def __init__(self, shards: "list[Future[Shard]]", capacity: int, device: torch.device) -> None:
        self.counts = Counts()
        self._store = _empty_rows(capacity, device)
        self._available = 0
        self._used = 0
        self._failure: Exception | None = None
        self._complete = False
        self._arrived = threading.Condition()
        self._random = torch.Generator().manual_seed(0)
        threading.Thread(target=self._collect, args=(shards, capacity), daemon=True).start()

    @property
    def epochs(self) -> float:
        """How often the rows made so far have been used."""
        return self._used / max(1, self._available)

    def _collect(self, shards: "list[Future[Shard]]", capacity: int) -> None:
        """Copy shards to the device as they come; runs in a thread of its own."""
        try:
            for future in shards:
                shard = future.result()
                room = capacity - self._available
                fresh = to_device(shard.rows, torch.device("cpu"))
                for store, part in zip(self._store, fresh, strict=True):
                    fitting = part[:room]
                    store[self._available : self._available + len(fitting)].copy_(fitting)
                with self._arrived:
                    self.counts.add(shard.counts)
                    self._available += min(room, len(shard.rows.tokens))
                    self._arrived.notify_all()
                if self._available == capacity:
                    break
        except CancelledError:
            pass  # training is over and the rest was not needed
        except Exception as failure:  # training goes on with the rows there are, if any
            print("Making training rows failed:", flush=True)
            traceback.print_exception(failure)
            self._failure = failure
        with self._arrived:
            self._complete = True
            self._arrived.notify_all()

    def take(self, count: int) -> Batch:
        """Return the next `count` rows; waits for the first ones, never for later ones."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._available >= count or self._complete)
            available = self._available
        if available == 0:
            raise RuntimeError("No training rows were made.") from self._failure
        if self._used + count <= available:
            chosen: slice | Tensor = slice(self._used, self._used + count)
        else:
            chosen = torch.randint(available, (count,), generator=self._random)
        self._used += count
        return self._store.at(chosen)

    def kept(self) -> DeviceRows:
        """Return all rows made so far."""
        return DeviceRows(*(part[: self._available] for part in self._store))
