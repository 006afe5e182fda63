"""The matrix kernels, in Triton's interpreter, against their slow twins."""

import json
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")
import tests.fakes.triton_on_cpu  # noqa: F401  isort: skip
from gemmarunner.kernels import linear as ops
from gemmarunner.kernels import linear_plan
from gemmarunner.kernels import linear_triton as kernels
from gemmarunner.kernels.linear_plan import Held, Plan, Tuning, plan, row_tile

DTYPES = (torch.float32, torch.bfloat16)
SHAPES = [(64, 64), (80, 128), (70, 100), (130, 272)]  # [n, k], some ragged
PUBLISHED = [(3072, 2560), (2560, 2048), (20480, 2560), (2560, 10240), (262144, 2560)]
PUBLISHED += [(5376, 21504), (8192, 5376), (256, 1536), (256, 10752), (1024, 256), (4224, 2816)]
SMALL = Plan(64, 32, 2, 2, 4)


def _matrix(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).div(shape[-1] ** 0.5).to(dtype)


def _assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    bound = 1e-5 if found.dtype is torch.float32 else 1.6e-2
    torch.testing.assert_close(found, expected, atol=bound, rtol=bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("rows", [1, 5, 17, 40])
def test_matmul_is_its_twin(rows: int, n: int, k: int, dtype: torch.dtype) -> None:
    """The partial sums add up to the twin's product, ragged shapes included."""
    x, weight = torch.randn(rows, k).to(dtype), _matrix(n, k, dtype=dtype)
    found = kernels.matmul(x, weight)

    assert found.dtype is torch.float32
    _assert_near(found.sum(0), ops.matmul_slow(x, weight)[0])


@pytest.mark.parametrize("splits", [1, 2, 3, 5])
def test_splits_cover_every_column_once(splits: int) -> None:
    """Any number of splits adds up, also one that does not divide the steps."""
    x, weight = torch.randn(3, 160), _matrix(64, 160)
    found = kernels.matmul(x, weight, SMALL._replace(splits=splits))

    assert len(found) == splits
    _assert_near(found.sum(0), ops.matmul_slow(x, weight)[0])


@pytest.mark.parametrize("tiles", [0, 1, 2, 3])
@pytest.mark.parametrize("rows", [2, 40])
def test_held_tiles_change_no_sum(rows: int, tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tiles are held, and with none left for the loop, every column counts once."""
    x, weight = (torch.randint(-9, 9, shape).float() for shape in ((rows, 160), (64, 160)))
    monkeypatch.setattr(linear_plan, "tuning", Tuning(Held(matmul=tiles, down=tiles)))

    for splits in (1, 2, 5):
        found = kernels.matmul(x, weight, SMALL._replace(splits=splits))
        assert torch.equal(found.sum(0), ops.matmul_slow(x, weight)[0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(32, 64), (48, 100), (100, 272)])
def test_gate_up_is_its_twin(n: int, k: int, dtype: torch.dtype) -> None:
    """Gate and up rows meet in one program, whatever part of a tile is left at the end."""
    x, weight = torch.randn(5, k).to(dtype), _matrix(2 * n, k, dtype=dtype)

    _assert_near(kernels.gate_up(x, weight), ops.gate_up_slow(x, weight))


@pytest.mark.parametrize("dtype", [DTYPES[0], pytest.param(DTYPES[1], marks=pytest.mark.slow)])
def test_ple_gate_is_its_twin(dtype: torch.dtype) -> None:
    """The gate's product is bent and meets the per-layer embedding."""
    x, weight = torch.randn(18, 96).to(dtype), _matrix(40, 96, dtype=dtype)
    ple = torch.randn(18, 40).to(dtype)

    _assert_near(kernels.ple_gate(x, weight, ple), ops.ple_gate_slow(x, weight, ple))


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_head_is_its_twin(softcap: float | None) -> None:
    """Logits are bent into the cap where there is one; a ragged vocabulary is whole."""
    x, weight = torch.randn(4, 64) * 4, _matrix(333, 64)
    found = kernels.head(x, weight, softcap)

    _assert_near(found, ops.head_slow(x, weight, softcap))


def test_a_row_is_the_same_in_every_tile() -> None:
    """A row sums its own numbers alone, in each row tile, and wherever it stands.

    The interpreter's products round as numpy's do, so whole numbers are used, which round nowhere;
    that bits are equal is a matter of the accelerator, where `tests.bench.kernels` checks it.
    """
    x, weight = (torch.randint(-9, 9, shape).float() for shape in ((128, 64), (64, 64)))
    expected = kernels.matmul(x, weight)

    for rows in (1, 2, 16, 17, 40):
        assert torch.equal(kernels.matmul(x[:rows], weight), expected[:, :rows])
    assert torch.equal(kernels.matmul(x[7:9], weight), expected[:, 7:9])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("n", "k"), PUBLISHED)
def test_plans_hang_on_the_weight_alone(n: int, k: int, whole: bool) -> None:
    """What orders a sum is the same for every row tile, and shared memory holds the stages."""
    plans = [plan(n, k, tile, whole=whole) for tile in (16, 32, 64, 128)]

    assert len({(p.splits, whole or p.block_k) for p in plans}) == 1
    for tile, p in zip((16, 32, 64, 128), plans, strict=True):
        assert (p.block_n + tile) * p.block_k * 2 * p.stages <= 220 * 1024
        assert p.block_n >= 64  # one kind of instruction
        assert p.splits == 1 or not whole


def test_row_tiles_are_the_least_that_hold() -> None:
    """1 to 16 rows share a tile, 17 need the next."""
    assert [row_tile(r) for r in (1, 16, 17, 40, 128)] == [16, 16, 32, 64, 128]


def test_ops_run_their_twins_without_an_accelerator() -> None:
    """On the CPU the public operations are the twins, up to prompts' many rows."""
    x, weight = torch.randn(3, 32), _matrix(48, 32)

    assert torch.equal(ops.matmul(x, weight), ops.matmul_slow(x, weight))
    assert torch.equal(ops.gate_up(x, weight), ops.gate_up_slow(x, weight))
    assert torch.equal(ops.head(x, weight, 30.0), ops.head_slow(x, weight, 30.0))
    assert ops.matmul(torch.randn(200, 32).bfloat16(), weight.bfloat16()).dtype is torch.bfloat16
    assert ops.dequantized(weight) is weight


BUILD = """
import json, re, sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gemmarunner.kernels import linear_triton as kernels
from gemmarunner.kernels.linear_plan import held_tiles, plan

def compiled(kernel, types, fixed, options):
    names = kernel.arg_names
    types = dict(zip(names, types)) | {name: "constexpr" for name in names[-len(fixed):]}
    consts = {(len(types) - len(fixed) + i,): value for i, value in enumerate(fixed)}
    pointers = [i for i, name in enumerate(names) if types[name].startswith("*")]
    sizes = [names.index("n"), names.index("k")]
    aligned = {(i,): [["tt.divisibility", 16]] for i in pointers + sizes}
    source = ASTSource(kernel, types, consts, aligned)
    options["launch_pdl"] = True
    return compile(source, target=GPUTarget("cuda", 90, 32), options=options)

def build(operation, n, k, tile, most=1):
    if operation == "ple":
        fixed = [k // 512, 1 if tile <= 8 else 4, 4, 512, True, True]
        return compiled(kernels.narrow, ["*bf16"] * 4 + ["i32"] * 3, fixed, {"num_warps": 4})
    p = plan(n, k, tile, whole=operation > 0)
    types = ["*bf16"] * 2 + ["*bf16" if operation == 1 else "*fp32"]
    types += ["i32"] * 4 + ["fp32"]
    held = held_tiles(k, tile, p, most)
    fixed = [operation, tile, p.block_n, p.block_k, k % p.block_k == 0, *held, True]
    options = {"num_warps": p.warps, "num_stages": p.stages}
    return compiled(kernels.product, types, fixed, options)

found = []
for case in json.loads(sys.argv[1]):
    built = build(*case)
    ptx = built.asm["ptx"]
    found.append({"shared": built.metadata.shared, "spills": ".local" in ptx,
                  "copies": "cp.async.cg" in ptx and "cp.async.ca" not in ptx,
                  "kinds": sorted(set(re.findall(r"wgmma.mma_async\\S*|mma.sync\\S*", ptx)))})
print(json.dumps(found))
"""


@pytest.mark.slow
def test_kernels_build_for_hopper_as_meant() -> None:
    """Every row tile and operation: wgmma, 16-byte copies, nothing spilled, memory that fits."""
    sizes = [(0, 3072, 2560), (0, 2560, 10240), (1, 20480, 2560), (0, 2560, 256), (2, 262144, 2560)]
    cases: list[tuple[int | str, int, int, int]]
    cases = [(*size, tile) for size in sizes for tile in (16, 32, 64, 128)]
    cases += [("ple", 256, 2560, rows) for rows in (8, 16)]
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    clean["PYTHONPATH"] = "daemon"
    command = [sys.executable, "-c", BUILD, json.dumps(cases)]
    run = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)

    for case, built in zip(cases, json.loads(run.stdout), strict=True):
        kind = f"wgmma.mma_async.sync.aligned.m64n{case[-1]}k16.f32.bf16.bf16"
        small = case[0] == "ple"
        assert built["kinds"] == ([] if small else [kind])
        assert built["copies"] or case[2] in (256, 2560)
        assert not built["spills"]
        assert built["shared"] <= 227 * 1024
