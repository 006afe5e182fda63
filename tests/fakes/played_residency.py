"""The real residency on a machine of figures, with whatever runners a test starts."""

from collections.abc import Callable
from pathlib import Path

from gemmad import wire
from gemmad.core import Manifest
from gemmad.memory.probe import Probe
from gemmad.memory.scripted import ScriptedProbe
from gemmad.memory.taken import Taken
from gemmad.residency.depths import DepthStates
from gemmad.residency.hands import PrepareLoad, Tools
from gemmad.residency.loop import Residency, Senses
from gemmad.residency.placing import WaysOf
from gemmad.residency.ports import NoSpare, Spare, StartRunner
from gemmad.residency.reasons import Reasons
from gemmad.residency.rules import Rules
from gemmad.residency.seen import OnEvent, unheard
from gemmad.residency.weighing import Weigher
from tests.fakes.machines import machine_of
from tests.fakes.residency_fakes import sized

LARGE = 1 << 40


def played_residency(
    root: Path,
    start: StartRunner,
    prepare: PrepareLoad,
    *,
    depths: DepthStates | None = None,
    files: Callable[[Manifest], wire.PairFiles] = lambda _: wire.PairFiles(target={}),
    ways: WaysOf | None = None,
    probe: Probe | None = None,
    senses: Senses | None = None,
    spare: Spare | None = None,
    on_event: OnEvent = unheard,
    request_s: float = float("inf"),
    **rules: float,
) -> Residency:
    """Not started yet. Without `ways`, pairs take a few bytes of a very large machine."""
    tools = Tools(
        start,
        prepare,
        depths or DepthStates(root / "depths.json"),
        Weigher(files, Taken(root / "taken.json")),
        spare or NoSpare(),
        Reasons(root / "set_aside.json", "1"),
    )
    perceived = senses or Senses(probe or ScriptedProbe([machine_of(LARGE)]))
    chosen = ways or WaysOf(sized())
    return Residency(tools, Rules(**rules), chosen, perceived, on_event, request_s)  # type: ignore[arg-type]
