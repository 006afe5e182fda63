"""What a LoRA's `adapter_config.json` (PEFT) says: how strongly each of its parts is added.

Keys that change what is computed and are not known here are refused, whatever their name: a
variant that is read as plain LoRA would give another model without a word.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from gemmad.api.errors import LoadFailed

Json = Mapping[str, object]

# What training, saving or choosing modules needed; the tensors tell which were chosen.
_HARMLESS = """
    auto_mapping base_model_name_or_path ensure_weight_tying eva_config exclude_modules
    inference_mode layers_pattern layers_to_transform loftq_config lora_dropout lora_ga_config
    megatron_core peft_type peft_version qalora_group_size revision runtime_config target_modules
    task_type
""".split()  # noqa: SIM905 -- twenty names, a line each with quotes
_READ = "alpha_pattern bias init_lora_weights lora_alpha r rank_pattern use_rslora".split()  # noqa: SIM905
_BASE_CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga")
_FIX = "Merge the adapter into the model with PEFT's merge_and_unload, and load the result."


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Rank and strength, in general and of modules that a pattern names."""

    rank: int
    alpha: float
    rank_stabilized: bool
    ranks: tuple[tuple[str, int], ...]  # (pattern, rank)
    alphas: tuple[tuple[str, float], ...]

    def rank_of(self, module: str) -> int:
        """The rank of a module of this name."""
        return next((rank for key, rank in self.ranks if _names(key, module)), self.rank)

    def scaling(self, module: str) -> float:
        """What the product of the module's two matrices is multiplied with."""
        alpha = next((alpha for key, alpha in self.alphas if _names(key, module)), self.alpha)
        rank = self.rank_of(module)
        return alpha / (rank**0.5 if self.rank_stabilized else rank)


def read_lora_config(data: Json) -> LoraConfig:
    """The adapter that `adapter_config.json` describes.

    Raises:
        LoadFailed: it is no plain LoRA, or a value is of the wrong kind.
    """
    if data.get("peft_type") != "LORA":
        _refuse(f"peft_type is {data.get('peft_type')!r}; only LORA is read")
    if data.get("bias", "none") != "none":
        _refuse(f"bias is {data['bias']!r}, and Gemma's matrices have none")
    made = data.get("init_lora_weights")
    if isinstance(made, str) and made.lower().startswith(_BASE_CHANGED):
        _refuse(f"init_lora_weights is {made!r}, for which the base model was changed too")
    for key in sorted(set(data).difference(_HARMLESS, _READ)):
        if data[key]:
            _refuse(f"it uses {key}, which is not known here")
    return LoraConfig(
        rank=int(_number(data, "r")),
        alpha=_number(data, "lora_alpha"),
        rank_stabilized=bool(data.get("use_rslora", False)),
        ranks=tuple((k, int(v)) for k, v in _patterns(data, "rank_pattern")),
        alphas=tuple(_patterns(data, "alpha_pattern")),
    )


def _names(pattern: str, module: str) -> bool:
    """As PEFT matches: the pattern is the end of the name, from the start of one of its parts."""
    try:
        return re.match(rf"(.*\.)?({pattern})$", module) is not None
    except re.error:
        return False


def _patterns(data: Json, key: str) -> list[tuple[str, float]]:
    given = data.get(key) or {}
    if not isinstance(given, Mapping):
        _refuse(f"{key} is {given!r}, not an object")
    return [(str(name), _number(given, name)) for name in given]


def _number(data: Json, key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        _refuse(f"{key} is {value!r}, not a positive number")
    return float(value)


def _refuse(why: str) -> NoReturn:
    raise LoadFailed(f"The adapter cannot be applied: {why}.", fix=_FIX)
