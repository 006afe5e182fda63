"""Compiles the attention and head kernels for compute capability 9.0, without a device.

A program of its own, as Triton's interpreter and compiler can't be used in one process.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).parents[3] / "daemon"))
from gemmarunner.kernels import attention, prompt_attention
from gemmarunner.kernels.attention_triton import combine_kernel, pieces_kernel
from gemmarunner.kernels.heads_triton import heads_kernel
from gemmarunner.kernels.prompt_attention_triton import prompt_kernel, store_kernel

SHARED_LIMIT = 232_448  # bytes a program may have
SPILL_LIMIT = 64  # bytes of stack a thread; the cosine of the C library takes 32
POINTERS = {
    **dict.fromkeys(("q", "cache", "new", "past", "out"), "*bf16"),
    **dict.fromkeys(("outputs", "partial", "peaks", "sums", "parts"), "*fp32"),
    **dict.fromkeys(("q_weight", "k_weight", "frequencies"), "*fp32"),
    **dict.fromkeys(("slots", "starts", "counts"), "*i32"),
    "eps": "fp32",
}
ALIGNED = ("cache_", "new_", "past_", "parts_", "ring")


def compiled(kernel: Any, warps: int, product: str, **constants: object) -> None:
    """Asserts that the kernel fits, and that its products are of the kind wanted."""
    names, constants = kernel.arg_names, {**constants, "PDL": True}
    kinds = {n: "constexpr" if n in constants else POINTERS.get(n, "i32") for n in names}
    even = [n for n in names if kinds[n].startswith("*") or n.startswith(ALIGNED)]
    source = ASTSource(
        fn=kernel,
        signature=kinds,
        constexprs={(names.index(n),): value for n, value in constants.items()},
        attrs={(names.index(n),): [["tt.divisibility", 16]] for n in even},
    )
    options = {"num_warps": warps, "launch_pdl": True}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    stack = spilled(made.asm["cubin"])
    print(kernel.__name__, constants, f"shared {made.metadata.shared}, stack {stack}", flush=True)
    assert made.metadata.shared <= SHARED_LIMIT
    assert stack <= SPILL_LIMIT
    assert product in made.asm["ptx"]


def spilled(binary: bytes) -> int:
    """Bytes of stack that a thread uses."""
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [tools / "cuobjdump", "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+)", usage)
    assert found
    return int(found[1])


def main() -> None:
    for width, windows in ((256, (512, 1024)), (512, (0,))):
        for window in windows:
            how = attention.tiling_for(width, window)
            shape = {"D": width, "WINDOW": window}
            decode = {**shape, "CHUNK": 64}
            for group in (2, 4, 8, 16):
                cut = {"GROUP": group, "BLOCK_N": how.block_n, "STAGES": how.stages}
                for block_m in (16, 32):
                    settings = {**decode, **cut, "BLOCK_M": block_m}
                    compiled(pieces_kernel, how.warps, "mma.sync.aligned.m16n8k16", **settings)
            blocks = {"TILE": how.tile, "BLOCK_D": how.block_d}
            compiled(combine_kernel, how.combine_warps, "", **decode, **blocks)
            tiles = prompt_attention.tiling_for(width)
            cut = {f"BLOCK_{n.upper()}": getattr(tiles, f"block_{n}") for n in "mno"}
            cut |= {"GROUP": 4, "STAGES": tiles.stages}
            compiled(prompt_kernel, tiles.warps, "wgmma.mma_async", **shape, **cut)
        compiled(store_kernel, 4, "", HEADS=2, D=width, ROWS=8)
        projection = {"SPLITS": 4, "HEADS": 8, "KV_HEADS": 2, "K_EQ_V": False, "IN_RING": True}
        compiled(heads_kernel, width // 256, "", D=width, **projection)


if __name__ == "__main__":
    main()
