"""Counts the parameters of tensors, and names the type that most of them have; pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from gemmad.formats.ggml_types import GGML_TYPES
from gemmad.formats.gguf import GgufTensor
from gemmad.formats.limits import BadFile
from gemmad.formats.safetensors import TensorPlace

_COMPUTED = ("rope_freqs.weight",)  # follows from the settings: nobody trained it
_SCALES = (".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_global_scale")
_PACKED = ".weight_packed"
_WORD_BITS = 32


class WeightFacts(NamedTuple):
    """What the headers say of all tensors together."""

    parameters: int
    dtype: str  # of most parameters: BF16, Q4_0


def gguf_weights(tensors: Iterable[GgufTensor]) -> WeightFacts:
    """The facts of a GGUF model. Its `general.file_type` is not asked: writers guess it.

    Raises:
        BadFile: there are no tensors.
    """
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.name not in _COMPUTED:
            counts[GGML_TYPES[tensor.type].name] += _product(tensor.shape)
    return _facts(counts)


def safetensors_weights(
    tensors: Iterable[TensorPlace], quantization: Mapping[str, Any] | None = None
) -> WeightFacts:
    """The facts of a safetensors model, quantized as its config says.

    Raises:
        BadFile: there are no tensors.
    """
    bits = _packed_bits(quantization)
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if bits and tensor.name.endswith(_PACKED):
            counts[f"INT{bits}"] += _product(tensor.shape) * (_WORD_BITS // bits)
        elif not (bits and tensor.name.endswith(_SCALES)):
            counts[tensor.dtype] += _product(tensor.shape)
    return _facts(counts)


def size_label(parameters: int) -> str:
    """A parameter count as people write it: 13.7M, 4.5B."""
    for unit, factor in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= factor:
            return f"{parameters / factor:.3g}{unit}"
    return str(parameters)


def _facts(counts: Counter[str]) -> WeightFacts:
    if not counts:
        raise BadFile("it has no tensors")
    return WeightFacts(counts.total(), counts.most_common(1)[0][0])


def _packed_bits(quantization: Mapping[str, Any] | None) -> int | None:
    """How many bits a weight has that compressed-tensors packs into words of 32; None: not so."""
    if not quantization or quantization.get("quant_method") != "compressed-tensors":
        return None
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        bits = weights.get("num_bits") if isinstance(weights, Mapping) else None
        if type(bits) is int and bits in (2, 4, 8):
            return bits
    return None


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product
