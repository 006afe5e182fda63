"""Which quantized safetensors checkpoints run, by `quantization_config`; what to use for others.

compressed-tensors   integers of 4 or 8 bits, one scale a group or a row, activations as they
                     are (w4a16, w8a16): run, see `compressed.py`
gemma                Google's mobile format: its activations are rounded to ranges fixed in
                     training, so that a decoder that leaves them alone computes something else
awq, gptq, ...       kernels and layouts of their own
"""

from collections.abc import Mapping
from typing import NoReturn, cast

from gemmad.api.errors import LoadFailed

Json = Mapping[str, object]

COMPRESSED = "compressed-tensors"
_BITS = (4, 8)
_STRATEGIES = ("group", "channel")
_FORMATS = ("pack-quantized", "int-quantized", "naive-quantized", "mixed-precision", None)
_INSTEAD = (
    "Use the same model as GGUF (google/gemma-4-*-it-qat-q4_0-gguf), as compressed tensors "
    "(google/gemma-4-*-it-qat-w4a16-ct), or in 16 bits with --quantize int4."
)


def is_compressed(settings: Json) -> bool:
    """Whether the weights of this `config.json` are compressed tensors."""
    config = _config(settings)
    return config is not None and config.get("quant_method", COMPRESSED) == COMPRESSED


def check_quantization(settings: Json) -> None:
    """Holds afterwards: the weights that `config.json` announces can be read and run.

    Raises:
        LoadFailed: naming what they are quantized with, and what to use instead.
    """
    config = _config(settings)
    if config is None:
        return
    method = config.get("quant_method", COMPRESSED)
    if method == "gemma":
        _refuse(
            "These weights are quantized for phones (quant_method gemma): activations are rounded "
            "to fixed ranges as well, which this decoder does not do."
        )
    if method != COMPRESSED:
        _refuse(f"These weights are quantized with {method!r}, which this decoder does not read.")
    _check_compressed(config)


def _config(settings: Json) -> Json | None:
    """What is said of quantization, at the top or of the text stack; None: nothing is."""
    nested = settings.get("text_config")
    for where in (settings, nested if isinstance(nested, Mapping) else {}):
        found = where.get("quantization_config") or where.get("compression_config")
        if found is None:
            continue
        if not isinstance(found, Mapping):
            _refuse(f"config.json: quantization_config is {found!r}, not an object.")
        return found
    return None


def _check_compressed(config: Json) -> None:
    """Scales, zero points and group sizes are seen from the tensors; the rest is told here."""
    for key in ("kv_cache_scheme", "sparsity_config", "transform_config"):
        if not _is_empty(config.get(key)):
            _refuse(f"config.json: quantization_config has a {key}, which this decoder lacks.")
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        _refuse("config.json: quantization_config names no config_groups.")
    for group in groups.values():
        if not isinstance(group, Mapping):
            _refuse(f"config.json: a config_group is {group!r}, not an object.")
        _check_group(group, config.get("format"))


def _check_group(group: Json, overall: object) -> None:
    found = group.get("format") or overall
    if found not in _FORMATS:
        _refuse(f"config.json: compressed tensors of format {found!r} are not read.")
    for key in ("input_activations", "output_activations"):
        if group.get(key) is not None:
            _refuse(f"config.json: {key} are quantized too, which this decoder does not do.")
    weights = group.get("weights")
    if not isinstance(weights, Mapping):
        _refuse(f"config.json: a config_group's weights are {weights!r}, not an object.")
    weights = cast(Json, weights)
    for key, value, accepted in (
        ("type", weights.get("type", "int"), ("int",)),
        ("num_bits", weights.get("num_bits"), _BITS),
        ("strategy", weights.get("strategy"), _STRATEGIES),
        ("dynamic", weights.get("dynamic", False), (False,)),
    ):
        if value not in accepted:
            wanted = " or ".join(map(str, accepted))
            _refuse(f"config.json: quantized weights have {key} {value!r}; {wanted} is read.")
    if weights.get("actorder") == "group":
        _refuse("config.json: the columns are reordered (actorder group), which is not read.")


def _is_empty(value: object) -> bool:
    """Absent, or an object that says of itself that nothing is done."""
    return not value or (isinstance(value, Mapping) and value.get("format") == "dense")


def _refuse(why: str) -> NoReturn:
    raise LoadFailed(why, fix=_INSTEAD)
