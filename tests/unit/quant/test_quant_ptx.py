"""The PTX that unpacks words computes the integers of the blocks, run by a small emulator."""

import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tests.fakes.triton_on_cpu")  # before any kernel

from gemmarunner.quant import unpack_triton

PTX = {  # bits a code, bits above, offset, signed
    "_Q4_0": (4, 0, 8, False),
    "_Q4_K": (4, 0, 0, False),
    "_Q5_K": (4, 1, 0, False),
    "_Q6_K": (4, 2, 32, False),
    "_Q8_0": (8, 0, 0, True),
}


def bf16x2(word: int) -> np.ndarray:
    """The two bf16 in a register, low half first, in float32."""
    halves = np.array([word & 0xFFFF, word >> 16], np.uint32)
    return (halves << 16).view(np.float32)


def run(ptx: str, registers: dict[str, Any]) -> dict[str, Any]:
    """The registers after `ptx`, of the five instructions that it uses."""
    for line in re.findall(r"^(\w[\w.]+) (.*);$", ptx, re.MULTILINE):
        name, (to, *sources) = line[0], line[1].split(", ")
        values = [registers[s] if s in registers else int(s, 0) for s in sources]
        match name:
            case "mov.b32":
                registers[to] = values[0]
            case "prmt.b32":
                data = values[0].to_bytes(4, "little") + values[1].to_bytes(4, "little")
                picked = [data[values[2] >> 4 * i & 7] for i in range(4)]
                registers[to] = int.from_bytes(picked, "little")
            case "shr.u32":
                registers[to] = values[0] >> values[1]
            case "shl.b32":
                registers[to] = values[0] << values[1] & 0xFFFFFFFF
            case "lop3.b32":
                assert values[3] == 0xEA
                registers[to] = values[0] & values[1] | values[2]
            case "fma.rn.bf16x2":
                a, b, c = map(bf16x2, values)
                registers[to] = a * b + c
            case _:
                raise AssertionError(name)
    return registers


@pytest.mark.parametrize("name", list(PTX))
def test_ptx_gives_each_words_own_codes(name: str) -> None:
    """Result i holds field i of the first word, then of the second, as exact integers."""
    bits, above, offset, signed = PTX[name]
    count = 32 // bits
    random = np.random.default_rng(0)
    for _ in range(50):
        words = [int(w) for w in random.integers(0, 2**32, 2)]
        high = [int(h) for h in random.integers(0, 2 ** (8 * above) if above else 1, 2)]
        inputs = {f"${count}": words[0], f"${count + 1}": words[1]}
        inputs[f"${count + 2}"] = high[0] | high[1] << 16

        found = run(getattr(unpack_triton, name).value, inputs)

        for i in range(count):
            codes = np.array([w >> bits * i & (1 << bits) - 1 for w in words])
            extra = np.array([h >> above * i & (1 << above) - 1 for h in high])
            expected = (codes.astype(np.uint8).view(np.int8) if signed else codes) + 16 * extra
            assert np.array_equal(found[f"${i}"], expected - offset)
