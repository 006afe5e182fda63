"""Which files of a listing make a target, its projector, its drafter and its documents; pure.

Names alone decide, folders included: `MTP/gemma-4-E2B-it-Q8_0-MTP.gguf` is a drafter,
`mmproj-BF16.gguf` a projector, `BF16/gemma-4-31B-it-BF16-00001-of-00002.gguf` one of two parts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gemmad.api.errors import Unsupported
from gemmad.core import safe_file_name
from gemmad.formats.file_names import wanted_file

_DOCUMENTS = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "README.md")
_DRAFTER = re.compile(r"(^|[/_.-])(mtp|assistant|draft)([/_.-]|$)", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}$")
# Without a variant the best of a GGUF repository: what the kernels read packed, 4 bits first.
_PREFERRED = ("Q4_0", "Q4_K_M", "Q4_K_S", "Q8_0", "Q6_K", "Q5_K_M", "BF16", "F16")
_DRAFTERS_PREFERRED = ("Q8_0", "BF16", "F16", "Q4_0")


@dataclass(frozen=True, slots=True)
class Choice:
    """The names of each part, as listed."""

    target: tuple[str, ...]
    projector: tuple[str, ...] = ()
    drafter: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    note: str | None = None  # what was taken when nothing was asked for


def choose(listing: Mapping[str, int], variant: str | None) -> Choice:
    """The files to take of those listed.

    1. A variant names a GGUF file, or a quantization.
    2. Safetensors in the top folder, with the named texts beside them.
    3. The best of several GGUF files.

    Raises:
        Unsupported: there are no weights, or none of that variant; the message lists what is there.
    """
    names = [name for name in sorted(listing) if _allowed(name)]
    documents = tuple(name for name in names if name in _DOCUMENTS)
    models = _groups([name for name in names if is_target_gguf(name)])
    if not (variant and models):
        top = [n for n in names if "/" not in n and not n.endswith(".gguf") and n not in documents]
        if any(name.endswith(".safetensors") for name in top):  # 2
            return Choice(tuple(top), documents=documents)
    target, note = _model(models, variant)  # 1, 3
    return Choice(target, _projector(names), _nearest_drafter(names, target[0]), documents, note)


def is_drafter_gguf(name: str) -> bool:
    """Whether the name is that of a drafter's GGUF file."""
    return name.endswith(".gguf") and _DRAFTER.search(name.removesuffix(".gguf")) is not None


def is_target_gguf(name: str) -> bool:
    """Whether the name is that of a target's GGUF file: neither drafter nor projector."""
    return name.endswith(".gguf") and not is_drafter_gguf(name) and not _is_projector(name)


def base_name(name: str) -> str:
    """The name without its folders, under which the file is kept."""
    return name.rsplit("/", 1)[-1]


def _allowed(name: str) -> bool:
    base = base_name(name)
    return safe_file_name(base) and wanted_file(base)


def _is_projector(name: str) -> bool:
    return base_name(name).lower().startswith("mmproj")


def _groups(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Parts of one model together, by the model's name without folder and part number."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_PART.sub("", base_name(name).removesuffix(".gguf")), []).append(name)
    return {stem: tuple(parts) for stem, parts in found.items()}


def _model(
    models: Mapping[str, tuple[str, ...]], variant: str | None
) -> tuple[tuple[str, ...], str | None]:
    if not models:
        raise Unsupported(
            "There are no weights of a model in it, neither safetensors nor GGUF.",
            fix="Name a repository or a directory with a Gemma 4 target.",
        )
    if variant:
        return _named(models, variant), None
    if len(models) == 1:
        return next(iter(models.values())), None
    for quantization in _PREFERRED:
        if found := [stem for stem in models if _has(stem, quantization)]:
            return models[found[0]], f"Of {len(models)} variants {found[0]} was taken."
    raise Unsupported("It has several variants.", fix=_say_which(models))


def _named(models: Mapping[str, tuple[str, ...]], variant: str) -> tuple[str, ...]:
    wanted = base_name(variant).removesuffix(".gguf")
    for stem, parts in models.items():
        if wanted == stem or variant in parts or wanted == base_name(parts[0])[:-5]:
            return parts
    found = [stem for stem in models if _has(stem, wanted)]
    if len(found) != 1:
        what = "several variants" if found else "no variant"
        raise Unsupported(f"It has {what} called {variant!r}.", fix=_say_which(models))
    return models[found[0]]


def _has(stem: str, quantization: str) -> bool:
    """Whether the name ends in, or holds as a word, this quantization; UD-Q4 is not Q4."""
    word = rf"(?<!UD)[-_.]{re.escape(quantization)}(?=[-.]|$)"
    return re.search(word, f"-{stem}", re.IGNORECASE) is not None


def _say_which(models: Mapping[str, tuple[str, ...]]) -> str:
    return f"Add one of these after a colon: {', '.join(sorted(models)[:30])}."


def _projector(names: Sequence[str]) -> tuple[str, ...]:
    """One file with the image and audio towers, the narrowest lossless one first."""
    found = [name for name in names if name.endswith(".gguf") and _is_projector(name)]
    ranked = sorted(found, key=lambda name: (not _has(name[:-5], "BF16"), name))
    return tuple(ranked[:1])


def _nearest_drafter(names: Sequence[str], target: str) -> tuple[str, ...]:
    drafters = _groups([name for name in names if is_drafter_gguf(name)])
    quantization = next((q for q in _PREFERRED if _has(base_name(target)[:-5], q)), "")
    for wanted in (quantization, *_DRAFTERS_PREFERRED):
        if wanted and (found := [stem for stem in drafters if _has(stem, wanted)]):
            return drafters[found[0]]
    return next(iter(drafters.values()), ())
