"""Reads tensors ahead of whoever asks for them, straight to their device, by several threads.

    file --preadv--> a ring of staging buffers (pinned for CUDA) --async copy--> device memory

Host memory is bounded by the ring, what waits on the device by `AHEAD_BYTES`. A tensor that is
asked for before its turn is read at once by the thread that asks, so nobody waits for ever.
"""

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gemmarunner.models.header import Place

THREADS = 4
PIECE_BYTES = 32 << 20
AHEAD_BYTES = 2 << 30


class CutOff(OSError):
    """The file ends before its tensor does."""


class _Arrival:
    """A tensor on its way."""

    def __init__(self, place: Place, memory: Tensor) -> None:
        self.place = place
        self.memory = memory  # [nbytes] uint8 on the device
        self.missing = 0  # pieces
        self.events: list[Any] = []  # after which its bytes are there


class _Piece(NamedTuple):
    of: _Arrival
    begin: int  # byte in the tensor
    nbytes: int


class Stage:
    """One staging buffer and the stream that empties it."""

    def __init__(self, device: torch.device, nbytes: int) -> None:
        self._is_cuda = device.type == "cuda"
        self._buffer = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self._is_cuda)
        self._bytes: memoryview = self._buffer.numpy().data
        self._stream: Any = torch.cuda.Stream(device) if self._is_cuda else None  # type: ignore[no-untyped-call]
        self._emptied: Any = None  # CUDA event of the last copy

    def fetch(self, fd: int, offset: int, into: Tensor) -> Any:
        """`into` [nbytes] uint8 will hold the file's bytes from `offset` on, after the event given.

        Raises:
            CutOff: the file ends before.
            OSError: it cannot be read.
        """
        self.drain()
        _read_fully(fd, offset, self._bytes[: into.numel()])
        filled = self._buffer[: into.numel()]
        if self._stream is None:
            into.copy_(filled)
            return None
        # What stood in this memory before may still be in use by kernels of the default stream.
        self._stream.wait_stream(torch.cuda.default_stream(into.device))
        with torch.cuda.stream(self._stream):
            into.copy_(filled, non_blocking=True)
            self._emptied = self._stream.record_event()
        return self._emptied

    def drain(self) -> None:
        """What was read has been copied."""
        if self._emptied is not None:
            self._emptied.synchronize()


class ReadAhead:
    """Tensors by name, read in the order of `places`; close it, or use it in a `with`."""

    def __init__(
        self,
        places: Sequence[Place],
        device: torch.device,
        *,
        threads: int = THREADS,
        piece_bytes: int = PIECE_BYTES,
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        self._device = device
        self._piece_bytes = piece_bytes
        self._ahead_bytes = ahead_bytes
        self._places = {place.name: place for place in places}
        self._files = {path: os.open(path, os.O_RDONLY) for path in {p.path for p in places}}
        self._stages: queue.SimpleQueue[Stage] = queue.SimpleQueue()
        largest = max((place.nbytes for place in places), default=1)
        for _ in range(threads + 1):  # one for whoever asks out of turn
            self._stages.put(Stage(device, max(1, min(piece_bytes, largest))))
        # Guards all below: the reading threads and whoever asks take turns at them.
        self._changed = threading.Condition()
        self._arrivals: dict[str, _Arrival] = {}
        self._asked: set[str] = set()
        self._waiting_bytes = 0  # of tensors begun and not asked for
        self._error: BaseException | None = None
        self._is_closed = False
        self._pieces = self._all_pieces(places)
        self._threads = [
            threading.Thread(target=self._work, name="read-ahead", daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, name: str) -> Tensor:
        """The tensor's bytes [nbytes] uint8 on the device, ready for its current stream.

        Each tensor can be had once: it is the caller's alone.

        Raises:
            OSError: its file could not be read, or ends too soon (CutOff).
            RuntimeError: the device has no room.
        """
        place = self._places[name]
        with self._changed:
            if name in self._asked:
                raise KeyError(f"{name} was already taken")
            self._asked.add(name)
            arrival = self._arrivals.pop(name, None)
            if arrival is not None:
                self._waiting_bytes -= place.nbytes
                self._changed.notify_all()
                self._wait_for(arrival)
        if arrival is None:
            arrival = self._read_now(place)
        for event in arrival.events:
            torch.cuda.current_stream(self._device).wait_event(event)
        return arrival.memory

    def _wait_for(self, arrival: _Arrival) -> None:
        self._changed.wait_for(lambda: arrival.missing == 0 or self._error is not None)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """No thread reads any more, no copy is under way and no file is open."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        while not self._stages.empty():
            self._stages.get().drain()
        while self._files:
            os.close(self._files.popitem()[1])

    def _all_pieces(self, places: Sequence[Place]) -> Iterator[_Piece]:
        """Pieces in order; a tensor's memory is made when its first piece is claimed."""
        for place in places:
            if place.name not in self._asked:
                arrival, pieces = self._begun(place)
                self._arrivals[place.name] = arrival
                self._waiting_bytes += place.nbytes
                yield from pieces

    def _begun(self, place: Place) -> tuple[_Arrival, list[_Piece]]:
        memory = torch.empty(place.nbytes, dtype=torch.uint8, device=self._device)
        arrival, step = _Arrival(place, memory), self._piece_bytes
        pieces = [
            _Piece(arrival, begin, min(step, place.nbytes - begin))
            for begin in range(0, place.nbytes, step)
        ]
        arrival.missing = len(pieces)
        return arrival, pieces

    def _read_now(self, place: Place) -> _Arrival:
        arrival, pieces = self._begun(place)
        for piece in pieces:
            self._fetch(piece)
        return arrival

    def _work(self) -> None:
        try:
            while (piece := self._claim()) is not None:
                self._fetch(piece)
        except BaseException as error:  # a thread's end: whoever asks next gets it
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _claim(self) -> _Piece | None:
        """The next piece, once there is room for it; None when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or self._error or self._waiting_bytes < self._ahead_bytes
            )
            return None if self._is_closed or self._error else next(self._pieces, None)

    def _fetch(self, piece: _Piece) -> None:
        arrival, place = piece.of, piece.of.place
        part = arrival.memory[piece.begin : piece.begin + piece.nbytes]
        stage = self._stages.get()
        try:
            event = stage.fetch(self._files[place.path], place.begin + piece.begin, part)
        finally:
            self._stages.put(stage)
        with self._changed:
            arrival.missing -= 1
            if event is not None:
                arrival.events.append(event)
            self._changed.notify_all()


def _read_fully(fd: int, offset: int, buffer: memoryview) -> None:
    while len(buffer):
        count = os.preadv(fd, [buffer], offset)
        if count == 0:
            raise CutOff(f"the file ends at byte {offset}")
        buffer, offset = buffer[count:], offset + count
