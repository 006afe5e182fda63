"""Compressed-tensors checkpoints give the weights that their own library would."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.compressed import CompressedTake
from gemmarunner.models.loader import load_target
from gemmarunner.quant.formats import Format, Packed
from gemmarunner.quant.grouped import Grouped, unpack_words
from tests.fakes.tiny_models import checkpoint_files

IDS = torch.arange(20)
W4A16 = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32},
        }
    },
}


def words_of(codes: Tensor, bits: int) -> Tensor:
    """The slow twin of the format's packing: field by field, the lowest bits first."""
    per = 32 // bits
    fields = torch.nn.functional.pad(codes.long() + (1 << (bits - 1)), (0, -codes.shape[1] % per))
    words = torch.zeros(codes.shape[0], fields.shape[1] // per, dtype=torch.int64)
    for i in range(per):
        words |= fields[:, i::per] << (bits * i)
    return torch.where(words >= 2**31, words - 2**32, words).int()


def codes_of(shape: tuple[int, int], bits: int, seed: int = 0) -> Tensor:
    """Every code there is, at random."""
    low = -(1 << (bits - 1))
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, -low, shape, generator=generator).to(torch.int8)


def grouped(bits: int, *, zero: bool = False, group: int = 32) -> Grouped:
    """A matrix [6, 128] with scales in bf16."""
    scale = torch.linspace(0.001, 0.07, 6 * 128 // group).bfloat16().view(6, -1)
    zeros = codes_of((6, 128 // group), bits, seed=1) if zero else None
    return Grouped(codes_of((6, 128), bits), scale, zeros, bits)


def reference(matrix: Grouped) -> Tensor:
    """The weights as the library computes them: in the scales' own dtype."""
    scale = matrix.scale.repeat_interleave(matrix.codes.shape[1] // matrix.scale.shape[1], 1)
    codes = matrix.codes.to(scale.dtype)
    if matrix.zero is not None:
        codes -= matrix.zero.to(scale.dtype).repeat_interleave(128 // matrix.zero.shape[1], 1)
    return codes * scale


def files_of(matrix: Grouped, name: str = "m.weight") -> dict[str, Tensor]:
    """The matrix as a checkpoint holds it, packed."""
    held = {
        f"{name}_packed": words_of(matrix.codes, matrix.bits),
        f"{name}_scale": matrix.scale,
        f"{name}_shape": torch.tensor(matrix.codes.shape),
    }
    if matrix.zero is not None:
        held[f"{name}_zero_point"] = words_of(matrix.zero.t(), matrix.bits).t().contiguous()
    return held


def take_of(held: dict[str, Tensor], notes: list[str] | None = None) -> CompressedTake:
    """Takes out of these tensors, in bf16."""

    def take(name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        assert held[name].shape == shape, name
        return held[name]

    shapes = {name: tuple(tensor.shape) for name, tensor in held.items()}
    return CompressedTake(take, shapes, torch.bfloat16, [] if notes is None else notes)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("count", [1, 7, 8, 40])
def test_words_unpack_to_the_codes_packed(bits, count) -> None:
    """Also where the last word is not full."""
    codes = codes_of((3, count), bits)

    assert torch.equal(unpack_words(words_of(codes, bits), bits, count), codes)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("group", [32, 64, 128])
def test_taken_tensor_equals_the_reference(bits, zero, group) -> None:
    """Groups of any size, a whole row too, with and without zero points: bit for bit."""
    matrix = grouped(bits, zero=zero, group=group)

    assert torch.equal(take_of(files_of(matrix))("m.weight", (6, 128)), reference(matrix))


@pytest.mark.parametrize(
    ("bits", "zero", "kept"),
    [(4, False, Format.Q4_0), (8, False, Format.Q8_0), (4, True, Format.Q8_0)],
)
@pytest.mark.parametrize("group", [32, 128])
def test_matrix_is_packed_without_loss(bits, zero, kept, group) -> None:
    """Packed anew it is the same to the last bit, in the smallest format that holds it."""
    matrix = grouped(bits, zero=zero, group=group)
    packed = take_of(files_of(matrix)).matrix("m.weight", (6, 128))

    assert isinstance(packed, Packed)
    assert packed.format is kept
    assert torch.equal(packed.dequantized(torch.float32), matrix.dequantized(torch.float32))
    assert torch.equal(packed.dequantized(torch.bfloat16), reference(matrix))


@pytest.mark.parametrize(
    "matrix",
    [
        Grouped(codes_of((2, 32), 4), torch.full((2, 1), 1e-7).bfloat16(), None, 4),
        Grouped(codes_of((2, 48), 4), torch.ones(2, 3), None, 4),
        Grouped(codes_of((2, 32), 8), torch.ones(2, 1), codes_of((2, 1), 8), 8),
        Grouped(codes_of((2, 32), 4), torch.full((2, 1), 0.1), None, 4),
    ],
    ids=["tiny scales", "groups of 16", "8 bits with zero points", "scales in float32"],
)
def test_what_would_lose_something_stays_unpacked(matrix) -> None:
    """It is unpacked instead, and the user is told once."""
    notes: list[str] = []
    held = files_of(matrix, "a.weight") | files_of(matrix, "b.weight")
    take = take_of(held, notes)
    shape = tuple(matrix.codes.shape)
    kept = [take.matrix(name, shape) for name in ("a.weight", "b.weight")]

    assert all(torch.equal(k, matrix.dequantized(torch.bfloat16)) for k in kept)
    assert len(notes) == 1


def test_unpacked_bytes_are_read() -> None:
    """The int-quantized layout holds codes and zero points as they are."""
    matrix = grouped(8, zero=True)
    held = {"m.weight": matrix.codes, "m.weight_scale": matrix.scale}
    held["m.weight_zero_point"] = matrix.zero

    assert torch.equal(take_of(held)("m.weight", (6, 128)), reference(matrix))


def test_experts_are_joined() -> None:
    """Matrices of single experts become the one tensor that the decoder asks for."""
    parts = {
        f"experts.{e}.{p}.weight": Grouped(codes_of((6, 128), 4, e), torch.ones(6, 4), None, 4)
        for e in range(3)
        for p in ("gate_proj", "up_proj")
    }
    held = {k: v for name, matrix in parts.items() for k, v in files_of(matrix, name).items()}
    joined = take_of(held)("experts.gate_up_proj", (3, 12, 128))

    expected = torch.cat([m.codes for m in parts.values()]).view(3, 12, 128)
    assert torch.equal(joined, expected.bfloat16())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"m.weight_shape": torch.tensor([6, 127])}, "shape"),
        ({"m.weight_packed": torch.zeros(6, 15, dtype=torch.int32)}, "words"),
        ({"m.weight_packed": torch.zeros(6, 16)}, "int32"),
        ({"m.weight_scale": torch.ones(5, 4)}, "scales"),
        ({"m.weight_scale": torch.ones(6, 3)}, "scales"),
        ({"m.weight_g_idx": torch.zeros(128, dtype=torch.int32)}, "reordered"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, told) -> None:
    """Nothing is read by chance: which matrix, and why."""
    take = take_of(files_of(grouped(4)) | change)

    with pytest.raises(LoadFailed, match=rf"m\.weight.*{told}"):
        take.matrix("m.weight", (6, 128))


def compressed(source: Path, into: Path) -> tuple[Path, Path]:
    """The checkpoint as w4a16, and its dequantized twin; powers of two make both exact."""
    tensors, twin = {}, {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if not name.endswith("_proj.weight") or tensor.ndim != 2 or tensor.shape[1] % 32:
            tensors[name] = twin[name] = tensor
            continue
        groups = tensor.unflatten(1, (-1, 32)).abs().amax(-1) / 7
        scale = groups.log2().ceil().exp2()
        codes = (tensor / scale.repeat_interleave(32, 1)).round().clamp(-8, 7).to(torch.int8)
        matrix = Grouped(codes, scale.bfloat16(), None, 4)
        tensors |= files_of(matrix, name)
        twin[name] = matrix.dequantized(tensor.dtype)
    config = json.loads((source / "config.json").read_text())
    made = []
    for kind, held, extra in (("ct", tensors, {"quantization_config": W4A16}), ("twin", twin, {})):
        made.append(into / kind)
        made[-1].mkdir()
        save_file(held, made[-1] / "model.safetensors")
        (made[-1] / "config.json").write_text(json.dumps(config | extra))
    return made[0], made[1]


@pytest.mark.parametrize("shape", ["31b", pytest.param("e2b", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_w4a16_pair_equals_its_dequantized_twin(pair_of, tmp_path, shape, dtype) -> None:
    """A whole target written so gives the twin's logits, but for activations rounded to bytes."""
    logits = []
    for directory in compressed(pair_of(shape).oracle.directory / "target", tmp_path):
        target = load_target(checkpoint_files(directory), "cpu", dtype)
        cache = KVCache(target.config, 32, 32, target.device, target.dtype)
        logits.append(target.logits(target.forward(IDS, cache)))

    found, twin = logits
    assert (found - twin).norm() < 0.05 * twin.norm()


def test_quantize_leaves_what_the_file_packed(pair_of, tmp_path) -> None:
    """The logits are those without --quantize, and the user reads that it changed little."""
    directory, _ = compressed(pair_of("31b").oracle.directory / "target", tmp_path)
    notes: list[str] = []
    logits = []
    for quantize in (None, "int8"):
        files = checkpoint_files(directory)
        target = load_target(files, "cpu", torch.float32, None, quantize, notes=notes)
        cache = KVCache(target.config, 32, 32, target.device, target.dtype)
        logits.append(target.logits(target.forward(IDS, cache)))

    torch.testing.assert_close(*logits)
    assert ["quantized already" in note for note in notes] == [True]
