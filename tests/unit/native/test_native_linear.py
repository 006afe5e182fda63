"""Products of the native library are those of their slow twins, and no row hangs on another."""

import threading

import pytest
import torch
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gemmarunner.native import library as native_library
from gemmarunner.native.library import library, status
from gemmarunner.native.linear import Native, can_multiply
from gemmarunner.native.stamp import stamp
from gemmarunner.quant.formats import Format, Packed, from_gguf, quantize
from tests.fakes.gguf_pairs import random_blocks

pytestmark = pytest.mark.skipif(library() is None, reason=status())

SHAPES = [(16, 32), (37, 64), (100, 1536), (2048, 96)]
K_FORMATS = [Format.Q4_K, Format.Q5_K, Format.Q6_K]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def floats(kind: str, rows: int, columns: int) -> Tensor:
    """Float32 values that only `kind` and wider types hold."""
    weight = randn(rows, columns)
    return {"bf16": weight.bfloat16().float(), "f16": weight.half().float(), "f32": weight}[kind]


def packed(format: Format, rows: int, columns: int) -> Packed:
    if format not in K_FORMATS:
        return quantize(randn(rows, columns), format)
    blocks = random_blocks(rows, columns, GGMLQuantizationType[format.name])
    return from_gguf(format, torch.from_numpy(blocks), (rows, columns))


def rounded(rows: Tensor) -> Tensor:
    """Activations as the kernels see them: 8 bits, a scale for each block of 32."""
    blocks = rows.unflatten(1, (-1, 32))
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    codes = (blocks * torch.where(scale == 0, 0, 1 / scale)).round()
    return (codes * scale).flatten(1)


@pytest.mark.parametrize(("rows", "columns"), [*SHAPES, (16, 2), (320, 16), (48, 34)])
@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_float_product_equals_its_twin(kind, rows, columns) -> None:
    """In float32, for one row, a few and more than fit a block; two bytes a weight where exact."""
    weight = floats(kind, rows, columns)
    multiply = Native(weight)
    assert multiply.nbytes == -(-rows // 16) * 16 * columns * (4 if kind == "f32" else 2)
    for count in (1, 3, 8, 130):
        x = randn(count, columns)

        torch.testing.assert_close(multiply(x), x @ weight.T, atol=2e-5 * columns**0.5, rtol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("format", [Format.Q8_0, Format.Q4_0])
def test_quantized_product_equals_its_twin(format, rows, columns) -> None:
    """Whole numbers are exact, so only the sums of blocks round."""
    weight = packed(format, rows, columns)
    multiply = Native(weight)
    for count in (1, 3, 8, 130):
        x = randn(count, columns)
        expected = rounded(x).double() @ weight.dequantized(torch.float32).double().T

        found = multiply(x).double()

        assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
@pytest.mark.parametrize("format", [Format.Q8_0, Format.Q4_0])
def test_blocks_of_a_file_and_planes_are_one_matrix(format, rows, columns) -> None:
    """Blocks are taken as they lie; what was packed otherwise comes as planes."""
    blocks, x = packed(format, rows, columns), randn(3, columns)
    planes = Packed(format, blocks.shape, blocks.planes)

    assert torch.equal(Native(blocks)(x), Native(planes)(x))


@pytest.mark.parametrize(("rows", "columns"), [(16, 256), (37, 512), (100, 1536), (48, 2304)])
@pytest.mark.parametrize("format", K_FORMATS)
def test_k_product_equals_its_twin(format, rows, columns) -> None:
    """In the bytes that the format takes, and of its scales nothing is rounded."""
    weight = packed(format, rows, columns)
    multiply = Native(weight)
    bytes_each = {"q4_k": 2368, "q5_k": 2880, "q6_k": 3360}[format]
    assert multiply.nbytes == -(-rows // 16) * columns // 256 * bytes_each
    for count in (1, 2, 3, 4, 5, 8, 130):
        x = randn(count, columns)
        expected = rounded(x).double() @ weight.dequantized(torch.float32).double().T

        found = multiply(x).double()

        assert (found - expected).norm() < 1e-5 * expected.norm()


@given(
    format=st.sampled_from(K_FORMATS),
    rows=st.integers(1, 50),
    supers=st.integers(1, 5),
    count=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30, deadline=None)
def test_k_products_of_any_shape_equal_their_twins(format, rows, supers, count, seed) -> None:
    """Whatever the bytes of codes and scales; and each row is what it is alone."""
    columns = 256 * supers
    blocks = random_blocks(rows, columns, GGMLQuantizationType[format.name], seed)
    weight = from_gguf(format, torch.from_numpy(blocks), (rows, columns))
    x = torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))
    multiply = Native(weight)

    found = multiply(x)

    expected = rounded(x).double() @ weight.dequantized(torch.float32).double().T
    assert (found.double() - expected).norm() < 1e-5 * expected.norm()
    assert torch.equal(found, torch.cat([multiply(row[None]) for row in x]))


# Which bytes of a block are codes and which its scales.
_CODES = {"q4_k": (slice(16, 144), slice(4, 16)), "q5_k": (slice(16, 176), slice(4, 16))}
_CODES["q6_k"] = (slice(0, 192), slice(192, 208))


@pytest.mark.parametrize("format", K_FORMATS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_greatest_codes_do_not_overflow(format, sign) -> None:
    """All codes and scales at their ends, and all activations: sums of 16 bits still hold them."""
    blocks = random_blocks(16, 256, GGMLQuantizationType[format.name])
    codes, scales = _CODES[format]
    blocks[:, codes] = 255
    blocks[:, scales] = 128 if format is Format.Q6_K else 255
    weight = from_gguf(format, torch.from_numpy(blocks), (16, 256))
    x = torch.full((1, 256), sign)

    found = Native(weight)(x)

    expected = x @ weight.dequantized(torch.float32).T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_matrices_of_other_kinds_may_lie_below() -> None:
    """Each writes its own rows, whole panels or not, whatever the kinds; all share the sums."""
    kinds = [Format.Q4_K, Format.Q6_K, Format.Q8_0, Format.Q5_K, Format.Q4_0]
    parts = [
        packed(kind, rows, 512) for kind, rows in zip(kinds, (40, 16, 9, 700, 32), strict=True)
    ]
    together = Native(*parts)
    assert together.shape == (797, 512)
    for count in (1, 4, 130):
        x = randn(count, 512)

        assert torch.equal(together(x), torch.cat([Native(part)(x) for part in parts], 1))


def test_rounded_and_plain_rows_do_not_mix() -> None:
    """One form of activations serves all that lie together."""
    assert can_multiply(packed(Format.Q4_K, 16, 256), packed(Format.Q6_K, 16, 256))
    assert not can_multiply(packed(Format.Q4_K, 16, 256), floats("bf16", 16, 256))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", ["bf16", "f16", "f32", *Format])
def test_rows_do_not_hang_on_other_rows(kind, threads) -> None:
    """Bit for bit, in every number that rounds have, at every place, by any number of threads."""
    made = packed(kind, 200, 1536) if isinstance(kind, Format) else floats(kind, 200, 1536)
    multiply, x = Native(made), randn(64, 1536)
    torch.set_num_threads(1)
    alone = torch.cat([multiply(row[None]) for row in x])
    try:
        torch.set_num_threads(threads)
        for count in (*range(1, 10), 17, 64):
            assert torch.equal(multiply(x[:count]), alone[:count]), count
            assert torch.equal(multiply(x[-count:]), alone[-count:]), count
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (40, 96), (200, 1536), (328, 2112)])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_of_a_prompt_are_those_of_rounds_to_rounding(rows, columns, threads) -> None:
    """By tile instructions where the processor has them; they hang on no other row there either."""
    weight, x = floats("bf16", rows, columns), randn(130, columns)
    multiply, expected = Native(weight), x.double() @ weight.double().T
    torch.set_num_threads(threads)
    try:
        found = multiply(x)
        assert torch.equal(multiply(x[:65]), found[:65])
    finally:
        torch.set_num_threads(1)

    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_calls_from_several_threads_do_not_mix() -> None:
    """The pool serves one caller after another."""
    multiply, x = Native(floats("bf16", 512, 256)), randn(8, 4, 256)
    expected = [multiply(rows) for rows in x]
    wrong: list[int] = []

    def call(index: int) -> None:
        for _ in range(50):
            if not torch.equal(multiply(x[index]), expected[index]):
                wrong.append(index)

    callers = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()

    assert wrong == []


def test_zeros_and_large_values_survive_rounding() -> None:
    """A block of zeros has no scale; one of great values neither overflows nor loses its sign."""
    weight = packed(Format.Q4_0, 32, 64)
    x = torch.zeros(2, 64)
    x[1, :32] = -3e4

    found = Native(weight)(x)

    assert torch.equal(found[0], torch.zeros(32))
    expected = x[1] @ weight.dequantized(torch.float32).T
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1.0)


def test_without_a_library_nothing_is_multiplied(monkeypatch) -> None:
    """And a person reads why."""
    monkeypatch.setattr(native_library, "_load", lambda: "no native kernels: not built")

    assert not can_multiply(torch.zeros(16, 32))
    assert status() == "no native kernels: not built"


def test_kernels_built_of_other_sources_are_not_called(monkeypatch) -> None:
    """Their functions may want other arguments; a person reads what to do."""
    loaded = native_library._load.__wrapped__
    monkeypatch.setattr(native_library, "stamp", lambda: "another")
    built_by_hand = not library().gm_stamp()

    found = loaded()

    assert built_by_hand or "built of other sources; install again" in found


def test_stamp_is_that_of_what_was_built() -> None:
    """Here, where they were built just now; a build by hand has none."""
    assert library().gm_stamp().decode() in ("", stamp())
