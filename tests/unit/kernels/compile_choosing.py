"""Compiles the kernels around the matrix products for compute capability 9.0, without a device.

A program of its own, as Triton's interpreter and compiler can't be used in one process. The
launchers run as they are, at the real shapes, on tensors of no content.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).parents[3] / "daemon"))
from gemmarunner.kernels import (
    accept_triton,
    centroid_triton,
    choose_triton,
    embed_triton,
    experts_triton,
    penalise_triton,
    settle_triton,
)
from gemmarunner.kernels.accept import Accepted
from gemmarunner.kernels.choose import Choosing
from gemmarunner.kernels.penalise import Bending
from gemmarunner.kernels.settle import Places

SHARED_LIMIT = 232_448  # bytes a program may have
KINDS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.bool: "*i1",
}
F32, I64, I32 = torch.float32, torch.int64, torch.int32
BATCH = 5


def compiled(kernel: Any, grid: tuple[int, ...], *args: object, **meta: Any) -> None:
    """Stands in for `launch`: asserts that the kernel fits and that no thread spills."""
    options = {"num_warps": meta.pop("num_warps"), "launch_pdl": True}
    options["enable_fp_fusion"] = meta.pop("enable_fp_fusion", True)
    names, meta = kernel.arg_names, {**meta, "PDL": True}
    given = dict(zip(names, args, strict=False))
    kinds = {name: "constexpr" if name in meta else kind(given[name]) for name in names}
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(names.index(name),): value for name, value in meta.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in names if kinds[n][0] == "*"},
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    usage = used(made.asm["cubin"])
    print(kernel.__name__, grid, f"shared {made.metadata.shared}, {usage}", flush=True)
    assert made.metadata.shared <= SHARED_LIMIT
    assert "STACK:0 " in usage
    assert kernel.__name__ not in ("_gate_up", "_down") or "mma.sync" in made.asm["ptx"]


def kind(value: object) -> str:
    """Triton's name of an argument's type."""
    if isinstance(value, Tensor):
        return KINDS[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def used(binary: bytes) -> str:
    """Registers and bytes of stack that a thread uses."""
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [tools / "cuobjdump", "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:\d+ STACK:\d+ ", usage)
    assert found
    return found[0]


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A tensor of no memory worth naming: only its type and shape matter."""
    return torch.empty(1, dtype=dtype).expand(shape)


def numbers(dtype: torch.dtype) -> Tensor:
    return empty(BATCH, dtype=dtype)


def main() -> None:
    compile_choices()
    hidden, ids = empty(BATCH, 5, 2560), numbers(I64)
    drafts, chosen = empty(BATCH, 4, dtype=I64), empty(BATCH, 5, dtype=I64)
    accept_triton.launch_accept(drafts, chosen, numbers(I32), hidden, None, None)
    brought = Accepted(chosen, numbers(I32), ids, numbers(torch.bfloat16))
    overflow = numbers(torch.bool)
    recent = empty(BATCH, 256, dtype=I32)
    places = Places(ids, numbers(I32), numbers(I32), recent)
    settle_triton.launch_settle(brought, overflow, places)
    floats = [numbers(F32)] * 3
    bending = Bending(numbers(I32), *floats, recent, numbers(I32))
    penalise_triton.launch_penalise(empty(5 * BATCH, 262_144, dtype=F32), drafts, bending)
    embed_triton.launch_embed(ids, empty(262_144, 2560), 50.5)
    context, gain = empty(2, BATCH, 10_752, dtype=F32), empty(256, dtype=F32)
    table = empty(262_144, 10_752)
    embed_triton.launch_ple_rows(ids, table, context, gain, 1e-6, 1.0, torch.bfloat16)
    clusters, members = empty(2048, 128, 256), empty(2048, 128, dtype=I64)
    centroid_triton.launch_centroid_logits(
        empty(BATCH, 256), empty(2048, 256), clusters, members, 32
    )
    compile_experts()


def compile_choices() -> None:
    floats = numbers(F32)
    how = Choosing(floats, numbers(I32), floats, floats, numbers(I64), numbers(I32))
    vocabulary, few = empty(BATCH, 262_144, dtype=F32), empty(BATCH, 4096, dtype=F32)
    choose_triton.launch_choose(vocabulary, how, 1, empty(2, dtype=I64))
    choose_triton.launch_draft(few, empty(BATCH, 4096, dtype=I64), how, 1, None)


def compile_experts() -> None:
    gate_up, down = empty(128, 1408, 2816), empty(128, 2816, 704)
    experts_triton.launch_route(empty(5, 2816), empty(128, 2816), empty(128, dtype=F32), 8)
    for rows in (1, 5, 128):
        shares, chosen = empty(rows, 8, dtype=F32), empty(rows, 8, dtype=I32)
        experts_triton.launch_experts(empty(rows, 2816), gate_up, down, shares, chosen)


def stand_in(launch: Callable[..., None]) -> None:
    """Holds afterwards: launchers call `launch` instead of a device."""
    rooms = (
        accept_triton,
        centroid_triton,
        choose_triton,
        embed_triton,
        experts_triton,
        penalise_triton,
        settle_triton,
    )
    for room in rooms:
        room.launch = launch  # type: ignore[attr-defined]


if __name__ == "__main__":
    stand_in(compiled)
    main()
