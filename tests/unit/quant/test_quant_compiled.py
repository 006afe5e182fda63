"""The kernels compile for Hopper ahead of time, in a process where Triton is no interpreter."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

PROGRAM = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from gemmarunner.quant import linear_triton
form, rows = sys.argv[1], int(sys.argv[2])
deep, affine = form.endswith("_k"), form in ("q4_k", "q5_k")
kinds = {
    "x": "*bf16", "codes": "*i32", "out": "*fp32", "softcap": "fp32",
    "scale": "*u8" if affine else "*i8" if deep else "*fp16",
    **dict.fromkeys(["R", "K", "N", "width", "steps", "each"], "i32"),
    **({"high": "*u8"} if form == "q5_k" else {"high": "*i16"} if form == "q6_k" else {}),
    **({"minimum": "*u8", "super_minimum": "*fp16"} if affine else {}),
    **({"super_scale": "*fp16"} if deep else {}),
}
fixed = {
    "FORMAT": form, "BLOCK": 16 if form == "q6_k" else 32, "FIELDS": 4 if form == "q8_0" else 8,
    "TAIL": False, "FAST": True, "BN": 64, "ROWS": rows, "SOFTCAP": False, "PDL": True,
}
kernel = linear_triton.product
names = kernel.arg_names
signature = {name: kinds.get(name, "constexpr") for name in names}
constants = {(i,): fixed.get(n) for i, n in enumerate(names) if signature[n] == "constexpr"}
aligned = {
    (i,): [["tt.divisibility", 16]]
    for i, n in enumerate(names) if signature[n].startswith("*") or n in ("K", "N", "width")
}
made = compile(
    ASTSource(kernel, signature, constants, aligned), target=GPUTarget("cuda", 90, 32),
    options={"num_warps": 4, "num_stages": 3 if rows < 64 else 2, "launch_pdl": True},
)
ptx = made.asm["ptx"]
print(made.metadata.shared, "wgmma" in ptx, "griddepcontrol.wait" in ptx)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rows", [16, 32, 64])
@pytest.mark.parametrize("form", ["q8_0", "q4_0", "q4_k", "q5_k", "q6_k"])
def test_compiles_for_hopper(form: str, rows: int) -> None:
    """Each takes tensor cores, waits for the kernel ahead, leaves shared memory for two."""
    environment = {**os.environ, "PYTHONPATH": "daemon"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", PROGRAM, form, str(rows)]

    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr[-2000:]
    shared, tensor_cores, waits = done.stdout.split()
    assert int(shared) <= 110 * 1024
    assert (tensor_cores, waits) == ("True", "True")


TILED = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from gemmarunner.quant import tiled_triton
form, groups, operation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
kinds = {
    "x": "*bf16", "codes": "*i32", "scale": "*i32", "ple": "*bf16", "softcap": "fp32",
    "out": "*fp32" if operation in (0, 2) else "*bf16",
    **dict.fromkeys(["R", "K", "N", "tiles", "steps", "each"], "i32"),
}
fixed = {
    "OPERATION": operation, "FORMAT": form, "PIECES": 2 if form == "q4_0" else 4, "TAIL": False,
    "GROUPS": groups, "TALL": 2 if groups == 2 else 1, "SIDE": 2, "DEEP": 2, "AHEAD": 1,
    "PDL": True,
}
names = tiled_triton.product.arg_names
signature = {name: kinds.get(name, "constexpr") for name in names}
constants = {(i,): fixed.get(n) for i, n in enumerate(names) if signature[n] == "constexpr"}
aligned = {
    (i,): [["tt.divisibility", 16]]
    for i, n in enumerate(names) if signature[n].startswith("*") or n in ("K", "N")
}
made = compile(
    ASTSource(tiled_triton.product, signature, constants, aligned),
    target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "launch_pdl": True},
)
ptx = made.asm["ptx"]
body = ptx[: ptx.rindex("mma.sync")]
print(made.metadata.shared, ptx.count("mma.sync"), "bar.sync" in body, "griddepcontrol.wait" in ptx)
"""


@pytest.mark.slow
@pytest.mark.parametrize("operation", [0, 1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4, 5])
@pytest.mark.parametrize("form", ["q4_0", "q8_0"])
def test_fragments_compile_for_hopper(form: str, groups: int, operation: int) -> None:
    """No barrier before the last product: each warp runs alone; two `mma` a block and group."""
    environment = {**os.environ, "PYTHONPATH": "daemon"}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", TILED, form, str(groups), str(operation)]

    done = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr[-2000:]
    shared, products, waits_inside, follows = done.stdout.split()
    assert int(shared) <= 4096
    assert int(products) == 8 * groups * (2 if groups == 2 else 1)
    assert (waits_inside, follows) == ("False", "True")
