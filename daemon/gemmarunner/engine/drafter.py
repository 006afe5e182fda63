"""Takes a pair's drafter out and puts one in between rounds, a bounded piece of work at a time."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gemmarunner.engine.ports import Backend


class _Attaching(NamedTuple):
    work: Iterator[None]
    done: Callable[[Exception | None], None]


class DetachedMeanwhile(RuntimeError):
    """A drafter was being put in when it was to be taken out."""


class DrafterSwitch:
    """What is to become of the drafter. One thread calls it; `turn` while no round is in flight."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._attaching: _Attaching | None = None
        self._detaching: list[Callable[[int], None]] = []

    @property
    def has_work(self) -> bool:
        """Whether `turn` would do something; thread-safe."""
        return bool(self._attaching or self._detaching)

    @property
    def attaching(self) -> bool:
        """Whether a drafter is being put in."""
        return self._attaching is not None

    def detach(self, done: Callable[[int], None]) -> None:
        """A `turn` frees the drafter and gives `done` the bytes."""
        self._detaching.append(done)

    def attach(self, drafter: Any, done: Callable[[Exception | None], None]) -> None:
        """Some `turn`s put `drafter` in; then `done`, with the error if there was one."""
        assert self._attaching is None
        self._attaching = _Attaching(self._backend.attach(drafter), done)

    def turn(self) -> None:
        """The next piece of work, if there is one; what is to go goes first."""
        if self._detaching:
            self._detach()
        elif self._attaching:
            self._attach(self._attaching)

    def _detach(self) -> None:
        waiting, self._detaching = self._detaching, []
        attaching, self._attaching = self._attaching, None
        if attaching:
            attaching.done(DetachedMeanwhile("it was taken out again meanwhile"))
            del attaching
        freed = self._backend.detach()
        for index, done in enumerate(waiting):
            done(0 if index else freed)

    def _attach(self, attaching: _Attaching) -> None:
        try:
            next(attaching.work)
            return
        except StopIteration:
            error: Exception | None = None
        except (RuntimeError, MemoryError) as failure:  # torch's own, out of memory among them
            self._backend.detach()
            error = failure
        self._attaching = None
        attaching.done(error)
