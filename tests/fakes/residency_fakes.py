"""Runners without processes, and Effects that only write down what they were told."""

import asyncio
import functools
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

import msgspec

from gemmad import wire
from gemmad.api.errors import GemmaError, RunnerCrashed
from gemmad.core import Digest, Manifest, ModelName
from gemmad.memory.parts import Setting
from gemmad.memory.readings import Machine
from gemmad.residency.budgets import PLACES, Way
from gemmad.residency.fits import Fit, Rooms, of_files
from gemmad.residency.resident import Resident, Waiter, Wanted
from gemmad.residency.seen import EventKind, Priority
from tests.fakes.store_scenes import manifest

STATS = wire.DraftStats(
    depth=2, rounds=1, drafted=2, accepted=1, per_position=(0.5,), tokens_per_round=2.0
)


def loaded(num_ctx: int = 4096) -> wire.Loaded:
    """What a fake runner reports."""
    return wire.Loaded(
        device="cpu", dtype="float32", target_bytes=1000, drafter_bytes=100, kv_bytes=10,
        num_ctx=num_ctx, load_ns=5, drafter=True,
    )  # fmt: skip


def wanted(
    name: str, num_ctx: int = 4096, *, exact: bool = False, content: bytes = b"", more_than: int = 0
) -> Wanted:
    """A pair a request needs; `content` stands for its files."""
    key = ModelName.parse(name).key
    return Wanted(key, pair(name, content), num_ctx, exact, more_than=more_than)


@functools.cache
def pair(name: str, content: bytes = b"") -> Manifest:
    """The same object for the same pair, as a store would give."""
    return manifest(name, {"config.json": content}, {"config.json": b"drafter"})


class InProcessRunner:
    """Echoes the last message word by word; `crash()` and `stop()` end it."""

    def __init__(self, load: wire.Load, name: str) -> None:
        self.load = load
        self.name = name
        self.loaded = loaded(load.num_ctx)
        self.pid = 4242
        self.closed: asyncio.Future[RunnerCrashed | None] = asyncio.Future()
        self.cancelled: list[int] = []
        self.gate = asyncio.Event()  # answers go on while it is set
        self.gate.set()
        self.asked = asyncio.Event()  # an answer waits at the gate or has passed it
        self.drafter_bytes = self.loaded.drafter_bytes
        self.attach_error: GemmaError | None = None  # why an attach fails
        self._ids = itertools.count(1)

    def new_id(self) -> int:
        return next(self._ids)

    async def generate(
        self, request: wire.Generate
    ) -> AsyncGenerator[list[wire.Delta | wire.Done], None]:
        words = f"echo: {request.messages[-1].content}".split() if request.messages else []
        try:
            for word in words:
                await self._open()
                yield [wire.Delta(id=request.id, text=word + " ")]
            done = wire.Done(
                id=request.id, reason="stop", prompt_tokens=2, prompt_ns=3, eval_tokens=4,
                eval_ns=5, draft=STATS, context=(1, 2), depth_state={"seen": request.id},
            )  # fmt: skip
            yield [done]
        except GeneratorExit:
            self.cancelled.append(request.id)
            raise

    async def _open(self) -> None:
        self.asked.set()
        waiting = asyncio.ensure_future(self.gate.wait())
        await asyncio.wait({waiting, self.closed}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.closed.done():
            raise self.closed.result() or RunnerCrashed("stopped")

    def crash(self) -> None:
        """The process died by itself."""
        self.closed.set_result(RunnerCrashed(f"{self.name} died", exit_code=-9, log_tail=["boom"]))

    async def reclaim(self, nbytes: int) -> int:
        return min(nbytes, self.loaded.kv_bytes)

    async def detach(self) -> int:
        freed, self.drafter_bytes = self.drafter_bytes, 0
        return 0 if self.closed.done() else freed

    async def attach(self) -> int:
        if self.closed.done():
            raise self.closed.result() or RunnerCrashed("stopped")
        if self.attach_error is not None:
            raise self.attach_error
        self.drafter_bytes = self.loaded.drafter_bytes
        return self.drafter_bytes

    async def measure(self) -> wire.Measured:
        if self.closed.done():
            raise self.closed.result() or RunnerCrashed("stopped")
        told = self.loaded
        return wire.Measured(
            device_bytes=0, host_bytes=2000, target_bytes=told.target_bytes,
            drafter_bytes=self.drafter_bytes, kv_bytes=told.kv_bytes, prefix_bytes=0,
            peak_device_bytes=0,
        )  # fmt: skip

    async def stop(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)


class StubRunner:
    """A runner as the scheduler sees it: something that is not closed, and what it loaded."""

    pid = 4242

    class closed:
        """Stands for the future."""

        @staticmethod
        def done() -> bool:
            return False

    def __init__(self, drafter: bool = True) -> None:
        self.loaded = msgspec.structs.replace(loaded(), drafter=drafter)


class RecordingEffects:
    """Writes down effects; the test plays the world's answers."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.told: list[tuple[str, str, str]] = []
        self.errors: dict[Waiter, GemmaError] = {}
        self.granted: dict[Waiter, Resident] = {}
        self.loading: list[Resident] = []
        self.stopping: list[Resident] = []
        self.reclaiming: list[tuple[Resident, int]] = []
        self.detaching: list[Resident] = []
        self.attaching: list[Resident] = []
        self.checking: list[Resident] = []
        self.spares_dropped = 0
        self.kept: dict[Digest, str] = {}  # why drafters are set aside

    def load(self, resident: Resident) -> None:
        self.log.append(f"load {resident.wanted.name.short}")
        self.loading.append(resident)

    def stop(self, resident: Resident) -> None:
        self.log.append(f"stop {resident.wanted.name.short}")
        self.stopping.append(resident)

    def reclaim(self, resident: Resident, nbytes: int) -> None:
        self.log.append(f"reclaim {resident.wanted.name.short} {nbytes}")
        self.reclaiming.append((resident, nbytes))

    def detach(self, resident: Resident) -> None:
        self.log.append(f"detach {resident.wanted.name.short}")
        self.detaching.append(resident)

    def attach(self, resident: Resident) -> None:
        self.log.append(f"attach {resident.wanted.name.short}")
        self.attaching.append(resident)

    def check(self, resident: Resident) -> None:
        self.log.append(f"check {resident.wanted.name.short}")
        self.checking.append(resident)

    def keep_set_aside(self, reasons: Mapping[Digest, str]) -> None:
        self.kept = dict(reasons)

    def drop_spare(self) -> None:
        self.log.append("drop spare")
        self.spares_dropped += 1

    def grant(self, waiter: Waiter, resident: Resident) -> None:
        self.log.append(f"grant {waiter.wanted.name.short}")
        self.granted[waiter] = resident

    def refuse(self, waiter: Waiter, error: GemmaError) -> None:
        self.log.append(f"refuse {waiter.wanted.name.short}")
        self.errors[waiter] = error

    def tell(
        self,
        kind: EventKind,
        name: ModelName | None = None,
        reason: str = "",
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        self.told.append((kind.value, name.short if name else "", reason))


def waiter(
    want: Wanted, keep_alive_s: float | None = None, priority: Priority = "interactive"
) -> Waiter:
    """A request outside of any event loop: the scheduler never looks at its future."""
    return Waiter(want, keep_alive_s, None, priority)  # type: ignore[arg-type]


def sized(
    target: int = 100, drafter: int = 10, *, smaller: Sequence[int] = (), slots: int = 1
) -> Callable[[Wanted, Machine, Rooms], Iterator[Way]]:
    """Ways of a pair that takes so many bytes of the machine's best budget, or what is smaller.

    The first of `smaller` ways is without the drafter.
    """

    def ways(want: Wanted, machine: Machine, _rooms: Rooms) -> Iterator[Way]:
        budget = machine.budget_of(machine.devices[0].id)
        assert budget is not None
        if want.num_ctx <= want.more_than:
            return
        has = want.manifest.drafter is not None and not want.without_drafter
        sizes = [(target + (drafter if has else 0), has)]
        sizes += [(nbytes, False) for nbytes in smaller]
        for rank, (nbytes, with_drafter) in enumerate(sizes):
            setting = Setting(want.num_ctx, slots, drafter=with_drafter, quantize=want.quantize)
            took = of_files(nbytes, 0, drafter=False, unified=False)
            device = machine.devices[0]
            parts = {budget.id: drafter} if want.manifest.drafter is not None else {}
            takes = {budget.id: nbytes}
            fit = Fit(device.id, device.kind, setting, took, takes, parts)
            yield Way({**takes, PLACES: 1}, rank, 0, fit)

    return ways
