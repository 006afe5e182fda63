"""Puts the facts of both halves into what lists and `show` tell; pure."""

from gemmad.core import Details, digest_of
from gemmad.formats.limits import BadFile
from gemmad.inspection.half import HalfFacts
from gemmad.inspection.inspected import Inspected
from gemmad.inspection.pairing import mismatch
from gemmad.inspection.weights import size_label


def describe(target: HalfFacts, drafter: HalfFacts | None, wrong: str | None) -> Inspected:
    """What the pair is; `wrong` says why its drafter is none at all.

    Raises:
        BadFile: the target has no tokenizer.
    """
    if target.tokenizer is None:
        raise BadFile("The target has no tokenizer.")
    if drafter is not None:
        wrong = mismatch(target.shape, drafter.shape)
    return Inspected(
        details=_details(target),
        info=_info(target),
        tokenizer=target.tokenizer,
        template=digest_of(target.template.encode()) if target.template is not None else None,
        parameters=target.parameters,
        drafter_parameter_size=size_label(drafter.weights.parameters) if drafter else None,
        drafter_mismatch=wrong,
    )


def capabilities(template: str) -> tuple[str, ...]:
    """What the chat template can write, by the control tokens it holds."""
    found = ["completion"]
    if "<|tool>" in template or "<|tool_call>" in template:
        found.append("tools")
    if "<|think|>" in template:
        found.append("thinking")
    return tuple(found)


def _details(target: HalfFacts) -> Details:
    context, embedding = (target.settings.get(k) for k in ("context_length", "embedding_length"))
    return Details(
        family=target.architecture.family,
        parameter_size=size_label(target.weights.parameters),
        quantization_level=target.weights.dtype,
        context_length=context if isinstance(context, int) else 0,
        embedding_length=embedding if isinstance(embedding, int) else 0,
        format=target.format,
        capabilities=capabilities(target.template or ""),
    )


def _info(target: HalfFacts) -> dict[str, object]:
    """Architecture facts under the keys Ollama's clients know."""
    family = target.architecture.family
    return {
        **target.info,
        "general.architecture": family,
        "general.parameter_count": target.weights.parameters,
        **{f"{family}.{key}": value for key, value in target.settings.items()},
    }
