"""Layers of a fused target on several devices: the same bits, and graphs one behind the other.

`cpu` and `cpu:0` are two names of one memory, so that rows are handed over between them here too.
"""

from pathlib import Path

import pytest
import torch

from gemmarunner.cuda.drafter import CudaDrafter
from gemmarunner.cuda.seams import Lane, Recorder, hand_over
from gemmarunner.cuda.slots import Slots
from gemmarunner.cuda.target import CudaTarget
from tests.fakes.tiny_models import checkpoint_files
from tests.unit.cuda.cuda_pairs import Pairs, begun, build, grown, sampler, taking, text

CPU, OTHER = torch.device("cpu"), torch.device("cpu:0")


def split_pair(whole: Pairs, directory: Path, first: int) -> Pairs:
    """The same weights, `first` layers apart."""
    config = whole.plain.config
    split = (("cpu:0", first), ("cpu", len(config.layers) - first))
    files = [checkpoint_files(directory / part) for part in ("target", "assistant")]
    target = CudaTarget(config, taking(files[0], "model."), CPU, torch.float32, split=split)
    drafter = CudaDrafter(whole.plain_drafter.config, taking(files[1], ""), target)
    return whole._replace(target=target, drafter=drafter)


def texts_of(pair: Pairs, depths: list[list[int]]) -> list[list[int]]:
    """Two texts, one greedy and one sampled, read in chunks and grown by rounds."""
    backend = pair.backend()
    by = [sampler(temperature=0.0), sampler(seed=3)]
    prompts = [text(70), text(9, seed=2)]
    texts = [begun(backend, slot, prompts[slot], by[slot]) for slot in range(2)]
    return grown(backend, texts, by, depths)


@pytest.mark.parametrize("shape", ["e2b", "12b", "26b"])
def test_split_pair_says_the_same(shape: str, tmp_path: Path) -> None:
    """Prompts and rounds at several depths, wherever the seam is."""
    whole = build(shape, tmp_path)
    depths = [[0, 0], [4, 1], [2, 2], [3, 0]]
    config = whole.plain.config
    movable = min(config.sliding_donor, config.full_donor)
    expected = texts_of(whole, depths)
    for first in {1, movable}:
        assert texts_of(split_pair(whole, tmp_path, first), depths) == expected


def test_rows_are_handed_over_at_each_seam_only(tmp_path: Path, monkeypatch) -> None:
    """There with their places, and back; a prompt's last row needs no hand-over."""
    whole = build("12b", tmp_path)
    seen = []

    def watched(tensors, device):
        seen.append((len(tensors), device))
        return hand_over(tensors, device)

    monkeypatch.setattr("gemmarunner.cuda.target.hand_over", watched)
    backend = split_pair(whole, tmp_path, 2).backend(slots=1)
    prompt = begun(backend, 0, text(9), sampler(temperature=0.0))
    assert seen == [(5, OTHER), (2, CPU)]
    grown(backend, [prompt], [sampler(temperature=0.0)], [[2]])

    assert seen[2:] == [(4, OTHER), (2, CPU)]


def test_keys_and_values_are_with_their_layers(tmp_path: Path) -> None:
    """Each layer's own are on its device."""
    config = build("12b", tmp_path).plain.config
    devices = [torch.device("meta"), *[CPU] * (len(config.layers) - 1)]
    slots = Slots(config, 1, 64, CPU, torch.float32, devices)

    assert [slots.cache(index).device.type for index in (0, 1)] == ["meta", "cpu"]
    assert slots.nbytes_of(0, len(config.layers)) == slots.nbytes


class FakeGraph:
    """Writes down what is done with it."""

    def __init__(self, log: list[str]) -> None:
        self._log = log
        self._name = f"graph {sum(line.startswith('begin') for line in log)}"

    def capture_begin(self, *, pool: object, capture_error_mode: str) -> None:
        self._log.append(f"begin {self._name} in {pool}, {capture_error_mode}")

    def capture_end(self) -> None:
        self._log.append(f"end {self._name}")

    def replay(self) -> None:
        self._log.append(f"replay {self._name}")


def test_a_function_with_seams_becomes_graphs_with_copies_between() -> None:
    """Each in its device's pool; a replay brings what a graph left into the inputs of the next."""
    log: list[str] = []
    recorder = Recorder(lambda device: Lane(None, str(device)), lambda: FakeGraph(log))
    left = torch.tensor([1.0])
    reached: list[torch.Tensor] = []

    def run() -> torch.Tensor:
        reached.extend(hand_over([left], OTHER))
        [back] = hand_over([reached[0].add(1)], CPU)
        return back

    chain, _ = recorder(run, CPU)
    assert log == [
        "begin graph 0 in cpu, thread_local", "end graph 0",
        "begin graph 1 in cpu:0, thread_local", "end graph 1",
        "begin graph 2 in cpu, thread_local", "end graph 2",
    ]  # fmt: skip
    log.clear()
    left.fill_(7.0)
    chain.replay()

    assert log == ["replay graph 0", "replay graph 1", "replay graph 2"]
    assert reached[0].item() == 7.0
    assert hand_over([left], CPU)[0] is left  # outside nothing is recorded


def test_a_capture_that_fails_leaves_nothing_behind() -> None:
    """What is handed over afterwards is not recorded."""
    recorder = Recorder(lambda _: Lane(None, None), lambda: FakeGraph([]))

    def fail() -> None:
        hand_over([torch.zeros(1)], OTHER)
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        recorder(fail, CPU)
    row = torch.zeros(1)

    assert hand_over([row], CPU)[0] is row
