"""Knows what pairs take: their shapes, read from their files once, and what loads really took."""

import logging
from collections.abc import Callable

from gemmad.api.errors import GemmaError
from gemmad.core import ByteCount, Digest, Manifest
from gemmad.formats.limits import BadFile
from gemmad.memory.estimate import Estimate, Setting, estimate
from gemmad.memory.files import read_shape
from gemmad.memory.shapes import PairShape
from gemmad.memory.split import Beside, SplitBytes, split_bytes
from gemmad.memory.taken import Taken, Took
from gemmad.residency.fits import Fit, of_files
from gemmad.residency.resident import Wanted
from gemmad.wire import Measured, PairFiles

MAX_SHAPES = 64
MAX_ESTIMATES = 4096

log = logging.getLogger(__name__)


class Weigher:
    """Shapes are read by requests' threads, estimates are asked for by the scheduler."""

    def __init__(self, files: Callable[[Manifest], PairFiles], taken: Taken) -> None:
        self._files = files
        self._taken = taken
        # Written by `know`, in one thread of many: a whole entry at a time.
        self._shapes: dict[Digest, PairShape | None] = {}
        self._estimates: dict[tuple[Digest, Setting], Estimate] = {}
        self._splits: dict[tuple[Digest, Setting, tuple[str, ...]], SplitBytes] = {}

    def knows(self, manifest: Manifest) -> bool:
        """Whether its files were read."""
        return manifest.id in self._shapes

    def know(self, manifest: Manifest) -> None:
        """Its files are read. Blocks."""
        try:
            shape = read_shape(self._files(manifest))
        except (BadFile, OSError, GemmaError) as error:
            # NOTE: its runner will say what is wrong; until then its files' sizes are counted.
            log.warning("the shape of %s cannot be read: %s", manifest.name, error)
            shape = None
        while len(self._shapes) >= MAX_SHAPES:
            self._shapes.pop(next(iter(self._shapes)), None)
        self._shapes[manifest.id] = shape

    def weigh(self, wanted: Wanted, setting: Setting) -> Estimate:
        """What a load in this way takes: as the last one did, else by its shape."""
        pair = wanted.manifest.id
        computed = self._estimates.get((pair, setting))
        if computed is None:
            computed = self._computed(wanted.manifest, pair, setting)
            if len(self._estimates) >= MAX_ESTIMATES:
                self._estimates.clear()
            self._estimates[pair, setting] = computed
        return self._taken.corrected(pair, setting, computed)

    def layers(
        self, wanted: Wanted, setting: Setting, devices: tuple[str, ...]
    ) -> SplitBytes | None:
        """What layers take on any of these devices, and what each took beside them the last time.

        None: its files cannot be read here.
        """
        pair = wanted.manifest.id
        shape = self._shapes.get(pair)
        if shape is None:
            return None
        computed = self._splits.get((pair, setting, devices))
        if computed is None:
            computed = split_bytes(shape, setting, devices)
            if len(self._splits) >= MAX_ESTIMATES:
                self._splits.clear()
            self._splits[pair, setting, devices] = computed
        beside = {
            id: Beside(
                *(
                    self._beside(pair, setting, f"{role} {id}", nbytes)
                    for role, nbytes in zip(Beside._fields, told, strict=True)
                )
            )
            for id, told in computed.beside.items()
        }
        return computed._replace(beside=beside)

    def _beside(self, pair: Digest, setting: Setting, place: str, computed: int) -> int:
        found = self._taken.known(pair, setting, place)
        return computed if found is None else found.device

    def took(self, manifest: Manifest, fit: Fit, measured: Measured) -> None:
        """A load in this way took so much after an answer.

        On a host, pages of a long context are not there yet: less than was told teaches nothing.
        """
        pair = manifest.id
        computed = self._estimates.get((pair, fit.setting))
        if computed is None or fit.setting.drafter != (measured.drafter_bytes > 0):
            return
        if fit.split:
            self._split_took(pair, fit, measured)
            return
        if computed.unified:
            device = measured.host_bytes + measured.device_bytes - measured.prefix_bytes
            if device <= computed.device:
                return
        else:
            device = measured.peak_device_bytes or measured.device_bytes
        if device > 0:
            took = Took(ByteCount(device), ByteCount(measured.host_bytes), computed.device)
            self._taken.learned(pair, fit.setting, took)

    def _split_took(self, pair: Digest, fit: Fit, measured: Measured) -> None:
        for told in measured.devices:
            if (share := fit.shares.get(told.device)) is None:
                continue
            beside = max(0, told.peak - (share.total - share.beside))
            role = "last" if told.device == fit.device else "before"
            took = Took(ByteCount(beside), computed=ByteCount(share.beside))
            self._taken.learned(pair, fit.setting, took, f"{role} {told.device}")

    def save(self) -> None:
        """What was learned is on disk."""
        self._taken.save()

    def _computed(self, manifest: Manifest, pair: Digest, setting: Setting) -> Estimate:
        shape = self._shapes.get(pair)
        if shape is not None:
            return estimate(shape, setting)
        drafter = manifest.drafter_size
        return of_files(
            sum(entry.size for entry in manifest.target.values()),
            drafter,
            drafter=setting.drafter,
            unified=setting.unified or setting.kind in ("cpu", "mps"),
        )
