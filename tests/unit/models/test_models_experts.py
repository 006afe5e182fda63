"""Experts in the native library are those of torch, in any format, and no row hangs on another."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gemmarunner.models.config import TargetConfig
from gemmarunner.models.hf_config import read_target_config
from gemmarunner.models.linear import make_linear
from gemmarunner.models.target import Target
from gemmarunner.models.weights import Matrix
from gemmarunner.native.library import library, status
from gemmarunner.quant.formats import Format, quantize
from tests.bench import shapes
from tests.fakes.short_texts import ids, new_cache

pytestmark = pytest.mark.skipif(library() is None, reason=status())

Keep = Callable[[Tensor], Matrix]
FORMATS: dict[str, Keep] = {
    "bf16": lambda matrix: matrix,
    "f16": lambda matrix: matrix.half(),
    "q8_0": lambda matrix: quantize(matrix, Format.Q8_0),
    "q4_0": lambda matrix: quantize(matrix, Format.Q4_0, search=False),
}


def config() -> TargetConfig:
    """A small model that sends each row to 3 of 20 experts."""
    small = {
        "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "head_dim": 32,
        "global_head_dim": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_global_key_value_heads": 1, "vocab_size": 256, "sliding_window": 32, "num_experts": 20,
        "top_k_experts": 3, "moe_intermediate_size": 544,
    }  # fmt: skip
    data = shapes.target_json("26b") | small
    return read_target_config(data | {"layer_types": data["layer_types"][4:6]})


def target_of(keep: Keep) -> Target:
    """Its matrices are kept so."""
    device = torch.device("cpu")
    made = shapes.Synthetic(device, torch.bfloat16)

    def take(name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        return made.take(name, shape).float()

    return Target(config(), take, device, torch.float32, linear=lambda m: make_linear(keep(m)))


@pytest.fixture(scope="module")
def targets() -> dict[str, Target]:
    return {name: target_of(keep) for name, keep in FORMATS.items()}


def read(target: Target, text: Tensor, rows: int) -> Tensor:
    cache = new_cache(target)
    return torch.cat([target.forward(part, cache) for part in text.split(rows)])


@pytest.mark.parametrize(
    ("format", "near"), [("bf16", 1e-5), ("f16", 1e-5), ("q8_0", 2e-2), ("q4_0", 2e-2)]
)
def test_native_experts_equal_those_of_torch(targets, monkeypatch, format, near) -> None:
    """To rounding: sums have another order, and an activation's 8 bits may be the next code."""
    target, text = targets[format], ids(40, 1)
    assert target._native, "these layers are native"
    native = read(target, text, 5)
    monkeypatch.setattr(target, "_native", None)

    plain = read(target, text, 5)

    assert (native - plain).norm() < near * plain.norm()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_experts_do_not_hang_on_their_number(targets, format, threads) -> None:
    """Bit for bit, alone and among rows that share some of its experts."""
    target, text = targets[format], ids(40, 2)
    alone = read(target, text, 1)
    torch.set_num_threads(threads)
    try:
        for rows in (2, 4, 9):
            assert torch.equal(read(target, text, rows), alone), rows
    finally:
        torch.set_num_threads(1)


def test_experts_of_several_formats_run_by_torch() -> None:
    """A layer's experts are one stack of one kind, or each is multiplied by itself."""
    kept: list[Matrix] = []

    def keep(matrix: Tensor) -> Matrix:
        kept.append(FORMATS["q8_0" if len(kept) % 2 else "q4_0"](matrix))
        return kept[-1]

    target = target_of(keep)

    assert target._native is None
    assert read(target, ids(6, 4), 3).isfinite().all()
