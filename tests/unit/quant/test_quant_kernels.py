"""The kernels on packed matrices compute what their slow twins compute, in Triton's interpreter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("tests.fakes.triton_on_cpu")  # before any kernel

from gemmarunner.kernels import linear as dense
from gemmarunner.quant import linear
from gemmarunner.quant.formats import Format, Packed, from_gguf, quantize
from gemmarunner.quant.planes import Planes
from tests.unit.quant.test_quant_formats import random_blocks

FORMATS = list(Format)
CUT = linear.Tiling(1)


@pytest.fixture(autouse=True)
def kernels_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor counts as the GPU's, for the operations on packed matrices."""
    monkeypatch.setattr(linear, "on_gpu", lambda x: True)


def packed_of(format: Format, rows: int, columns: int, seed: int = 1) -> Packed:
    """A matrix with usual scales; of a K that does not fill its last step if the format lets it."""
    blocks = random_blocks(format, rows, columns, seed, extreme=False)
    return from_gguf(format, torch.from_numpy(blocks), (rows, columns))


def rows_of(count: int, columns: int) -> Tensor:
    """Activations in bf16."""
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(count)).bfloat16()


def close(expected: Tensor, actual: Tensor, tolerance: float = 2e-5) -> bool:
    """Equal but for the order of float32 sums, relative to the largest."""
    assert expected.shape == actual.shape
    assert expected.dtype == actual.dtype
    return bool((expected - actual).abs().max() <= tolerance * expected.abs().max())


@pytest.mark.parametrize("format", FORMATS)
def test_matmul_is_the_twins(format: Format) -> None:
    """Sums of all splits are the product with the unpacked float32 matrix; N, K, R fill no tile."""
    columns = 512 if format.endswith("_k") else 416
    packed = packed_of(format, 24, columns)
    x = rows_of(3, columns)

    expected = dense.matmul_slow(x.float(), packed.dequantized(torch.float32))[0]
    actual = linear.matmul(x, packed, linear.Tiling(2))

    assert actual.shape == (2, 3, 24)
    assert close(expected, actual.sum(0))


@pytest.mark.parametrize("operation", ["gate_up", "ple_gate", "head"])
def test_fused_operations_are_the_twins(operation: str) -> None:
    """What follows the product in the same kernel is what follows it in the twin."""
    packed = packed_of(Format.Q4_0, 40, 256)
    x, ple = rows_of(5, 256), torch.randn(5, 40).bfloat16()
    rest: dict[str, tuple[object, ...]] = {"gate_up": (), "ple_gate": (ple,), "head": (30.0,)}
    twin: Callable[..., Tensor] = getattr(dense, operation + "_slow")

    expected = twin(x.float(), packed.dequantized(torch.float32), *rest[operation])
    actual: Tensor = getattr(linear, operation)(x, packed, *rest[operation])

    assert actual.dtype == (torch.float32 if operation == "head" else torch.bfloat16)
    assert close(expected.float(), actual.float(), 1e-4 if operation == "head" else 2**-6)


@pytest.mark.parametrize("format", [Format.Q4_0, Format.Q4_K])
def test_a_row_hangs_on_no_other(format: Format) -> None:
    """A row's partial sums are the same bit for bit among 1, 17 and 40 rows."""
    packed = packed_of(format, 16, 512)
    x = rows_of(40, 512)

    alone = linear.matmul(x[:1], packed, CUT)[:, 0]

    for count in (17, 40):
        assert torch.equal(alone, linear.matmul(x[:count], packed, CUT)[:, 0])


@pytest.mark.parametrize("format", FORMATS)
def test_unpacked_is_bit_for_bit(format: Format) -> None:
    """The kernel that unpacks a matrix for many rows gives the twin's float32 weights."""
    columns = 256 if format.endswith("_k") else 288
    packed = packed_of(format, 20, columns)

    expected = packed.dequantized(torch.float32)

    assert torch.equal(expected, linear.unpacked(packed, torch.float32))


def test_many_rows_run_unpacked() -> None:
    """Beyond 128 rows there is one partial sum, in the activations' dtype."""
    packed = quantize(torch.randn(16, 64), Format.Q8_0)

    actual = linear.matmul(rows_of(129, 64), packed)

    assert actual.shape == (1, 129, 16)
    assert actual.dtype is torch.bfloat16


@pytest.mark.parametrize("shape", [(20480, 2560), (2560, 10240), (512, 2560), (262144, 1536)])
def test_cuts_take_each_step_once(shape: tuple[int, int]) -> None:
    """Splits are at most 8 and none is empty; a whole cut has one."""
    packed = Packed(Format.Q4_0, shape, linear_planes(shape))
    steps = linear.step_count(packed)

    cut = linear.tiling(packed, whole=False)
    each = -(-steps // cut.splits)

    assert 1 <= cut.splits <= 8
    assert (-(-steps // each) - 1) * each < steps
    assert linear.tiling(packed, whole=True).splits == 1


def linear_planes(shape: tuple[int, int]) -> Planes:
    """Planes of a shape, without memory."""
    codes = torch.empty(shape[0], shape[1] // 8, dtype=torch.int32, device="meta")
    return Planes(codes, torch.empty(0, device="meta"))
