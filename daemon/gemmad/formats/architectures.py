"""The architectures that are recognised, by what files call them, and which of them run."""

from typing import Literal, NamedTuple

Family = Literal["gemma4", "gemma3"]
Role = Literal["target", "drafter"]

SUPPORTED: frozenset[Family] = frozenset({"gemma4"})  # the switch: families that the runner decodes


class Architecture(NamedTuple):
    """A model's family, and which half of a pair it is."""

    family: Family
    role: Role


_GEMMA4, _DRAFTER = Architecture("gemma4", "target"), Architecture("gemma4", "drafter")
_GEMMA3 = Architecture("gemma3", "target")

MODEL_TYPES: dict[str, Architecture] = {  # `model_type` of config.json
    **dict.fromkeys(("gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"), _GEMMA4),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), _DRAFTER),
    **dict.fromkeys(("gemma3", "gemma3_text"), _GEMMA3),
}
GGUF_ARCHITECTURES: dict[str, Architecture] = {  # `general.architecture`
    "gemma4": _GEMMA4,
    **dict.fromkeys(("gemma4-assistant", "gemma4_assistant"), _DRAFTER),
    "gemma3": _GEMMA3,
}
GGUF_PROJECTORS = ("clip",)  # image and audio towers in a file of their own (mmproj)
