"""Whether a `config.json` may be believed: an architecture that runs, and no key that names code.

transformers has run code for such keys although nobody trusted the repository (CVE-2026-4372,
CVE-2026-5241, CVE-2026-22807); nothing of them is needed, so their mere presence is refused.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gemmad.formats.architectures import MODEL_TYPES, SUPPORTED, Architecture
from gemmad.formats.limits import BadFile, shown

QUANTIZATIONS = ("compressed-tensors",)

_CODE_KEYS = frozenset(
    (
        *("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate"),
        *("attn_implementation", "_attn_implementation", "experts_implementation", "use_kernels"),
    )
)
_CODE_SUFFIX = "_implementation_internal"
_NAME_KEYS = frozenset(("_name_or_path", "name_or_path", "base_model_name_or_path"))
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_CLASSES = re.compile(r"Gemma[34]\w*(?:ForConditionalGeneration|ForCausalLM)")


def check_config(config: Mapping[str, Any]) -> None:
    """`config` is of an architecture that runs, and names neither code nor another repository.

    Raises:
        BadFile: naming the key, and its value where that is what is wrong.
    """
    check_keys(config)
    for key, value in _strings(config):
        if key not in _NAME_KEYS and _REPOSITORY.fullmatch(value):
            raise BadFile(f"its key {shown(key)} names another repository, {shown(value)}")
    _check_quantization(config.get("quantization_config"))
    check_supported(architecture(config))


def check_keys(settings: Mapping[str, Any]) -> None:
    """No key of any settings file, however deep, asks for code.

    Raises:
        BadFile: naming the key.
    """
    for key, _ in _items(settings):
        if key in _CODE_KEYS or key.endswith(_CODE_SUFFIX):
            raise BadFile(f"its key {shown(key)} asks for code of the repository or another")


def architecture(config: Mapping[str, Any]) -> Architecture:
    """What `config` describes.

    Raises:
        BadFile: nothing that is known here.
    """
    named = config.get("model_type")
    found = MODEL_TYPES.get(named) if isinstance(named, str) else None
    if found is None:
        raise BadFile(f"its model_type {shown(str(named))!r} is not supported; Gemma 4 is")
    classes = config.get("architectures") or ()
    if not isinstance(classes, list | tuple):
        raise BadFile("its key architectures is no list")
    for name in classes:
        if not isinstance(name, str) or not _CLASSES.fullmatch(name):
            raise BadFile(f"its architecture {shown(str(name))} is not one that writes text")
    return found


def check_supported(found: Architecture) -> None:
    """The runner decodes this family.

    Raises:
        BadFile: it does not.
    """
    if found.family not in SUPPORTED:
        raise BadFile(
            "it is a Gemma 3 model, which uses attention values as they are; the decoder here, "
            "made for Gemma 4, normalises them. Use a Gemma 4 model, such as gemma4:e2b or e4b"
        )


def _check_quantization(settings: object) -> None:
    if settings is None:
        return
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    if method not in QUANTIZATIONS:
        raise BadFile(
            f"its weights are quantized as {shown(str(method))!r}, which is not read; take the "
            "model's -it-qat-q4_0-gguf or -it-qat-w4a16-ct, or the plain one with --quantize"
        )


def _items(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth; elements of a list carry the list's key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name), inner
            yield from _items(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield key, inner
            yield from _items(inner, key)


def _strings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, value in _items(config) if isinstance(value, str))
