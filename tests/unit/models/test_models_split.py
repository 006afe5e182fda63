"""Layers on several devices: the same numbers, every part where it belongs, and clear refusals.

`cpu` and `cpu:0` are two names of one memory, so that rows are handed over between them here too.
"""

from pathlib import Path

import pytest
import torch

from gemmad.api.errors import LoadFailed
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.attention import Piece, Span
from gemmarunner.models.loader import load_drafter, load_target
from gemmarunner.models.split import layer_devices, moved, stretches
from gemmarunner.models.target import Target
from gemmarunner.models.turns import Part, Turn
from tests.fakes.engine_runs import ask, eager_engine
from tests.fakes.tiny_models import SHAPES, checkpoint_files

CPU, OTHER = torch.device("cpu"), torch.device("cpu:0")
IDS = torch.tensor([5, 9, 77, 3, 12, 40, 41, 2])


def files(shape: str, directory: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """A tiny pair's files."""
    SHAPES[shape](directory)
    return checkpoint_files(directory / "target"), checkpoint_files(directory / "assistant")


def split_of(target: Target, first: int) -> tuple[tuple[str, int], ...]:
    """`first` layers apart from the rest."""
    return (("cpu:0", first), ("cpu", len(target.config.layers) - first))


@pytest.mark.parametrize("shape", ["12b", "26b", "e2b"])
def test_split_target_computes_the_same(shape: str, tmp_path: Path) -> None:
    """Logits after a prompt and after single rows, whatever layer the seam lies before."""
    target_files, _ = files(shape, tmp_path)
    whole = load_target(target_files, "cpu", torch.float32)
    expected = _logits(whole)
    for first in (1, 2):
        split = load_target(target_files, "cpu", torch.float32, split=split_of(whole, first))
        torch.testing.assert_close(_logits(split), expected, atol=1e-4, rtol=1e-4)


def _logits(target: Target) -> torch.Tensor:
    cache = KVCache(
        target.config, 64, 16, target.device, target.dtype, layer_devices=target.layer_devices
    )
    target.forward(IDS[:6], cache, keep=1)
    rows = [target.forward(IDS[at : at + 1], cache) for at in (6, 7)]
    return target.logits(torch.cat(rows))


def test_split_pair_drafts_and_says_the_same(tmp_path: Path) -> None:
    """The drafter beside the last layers reads their keys; greedy words are those without it."""
    target_files, drafter_files = files("12b", tmp_path)
    whole = load_target(target_files, "cpu", torch.float32)
    split = load_target(target_files, "cpu", torch.float32, split=split_of(whole, 2))
    drafter = load_drafter(drafter_files, "cpu", torch.float32)
    drafter.bind(split)
    engine = eager_engine(split, drafter, num_ctx=96)

    plain, drafted = (ask(engine, IDS.tolist(), draft=mode, max_tokens=30) for mode in ("off", 3))

    assert plain.tokens == drafted.tokens
    assert drafted.finished.draft.drafted > 0


def test_keys_and_values_are_with_their_layers(tmp_path: Path) -> None:
    """Each layer's own store is on its device."""
    target = load_target(files("12b", tmp_path)[0], "cpu", torch.float32)
    devices = [torch.device("meta"), *[CPU] * (len(target.config.layers) - 1)]

    cache = KVCache(target.config, 64, 16, CPU, torch.float32, layer_devices=devices)

    assert cache.store(0).device.type == "meta"
    assert cache.store(1).device.type == "cpu"


def test_seams_are_where_devices_change() -> None:
    """Each stretch of layers once, in their order, within what is run."""
    devices = [OTHER, OTHER, CPU, CPU, OTHER]

    assert list(stretches(devices, 1, 5)) == [(1, 2, OTHER), (2, 4, CPU), (4, 5, OTHER)]
    assert list(stretches(devices, 2, 2)) == []


def test_what_layers_need_moves_with_the_rows() -> None:
    """Angles and masks; the cache stays."""
    mask = torch.zeros(1, 1, 1, 64)
    span = Span(0, 1, (Piece(0, 1, 0, 64, mask),), start=0, base=0, window=None)
    cache = object()
    turn = Turn(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), (Part(cache, span),))  # type: ignore[arg-type]

    there = moved(turn, torch.device("meta"))

    assert there.cos.device.type == there.sin.device.type == "meta"
    assert there.parts[0].span.pieces[0].mask.device.type == "meta"
    assert there.parts[0].cache is cache


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ((("cpu:0", 1), ("cpu", 1)), "The split has 2 layers"),
        ((("cpu", 1), ("cpu:0", -1)), "The last layers are on cpu:0"),
        ((("cpu:0", -1), ("cpu", 1)), "its? keys and values are read on cpu"),
    ],
)
def test_impossible_splits_are_refused(
    split: tuple[tuple[str, int], ...], words: str, tmp_path: Path
) -> None:
    """With what is wrong; -1 stands for all the other layers."""
    config = load_target(files("e2b", tmp_path)[0], "cpu", torch.float32).config
    counted = [(device, len(config.layers) - 1 if n == -1 else n) for device, n in split]

    with pytest.raises(LoadFailed, match=words.replace("its? ", "")):
        layer_devices(counted, config, CPU)
