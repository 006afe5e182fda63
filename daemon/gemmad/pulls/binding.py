"""The manifest of a plan whose files are all in the store and have been looked into; pure."""

from collections.abc import Mapping

from gemmad.api.errors import PairMismatch
from gemmad.core import Manifest, ModelName
from gemmad.pulls.ports import Accepts, Inspected
from gemmad.sources.plan import Plan

Values = dict[str, bool | int | float | str | list[str]]


def manifest_of(
    name: ModelName, plan: Plan, found: Inspected, created: str, accepts: Accepts
) -> Manifest:
    """What binds the files under `name`, without a drafter that was only looked for and misfits.

    Raises:
        PairMismatch: a drafter that was asked for does not fit.
    """
    drafter, mismatch = plan.group("drafter"), found.drafter_mismatch
    if drafter and mismatch and plan.draft != "auto":
        raise PairMismatch(
            f"This drafter does not belong to the target: {mismatch}",
            fix="Name the target's own drafter, or none: `gemma pull --no-draft`, or `DRAFT none` "
            "in a Modelfile.",
        )
    kept = bool(drafter) and not mismatch
    notes = [*plan.notes, *found.notes]
    if drafter and mismatch:
        notes.append(f"No drafter: {mismatch}")
    parameters, dropped = _usable({**found.parameters, **plan.parameters}, accepts)
    if dropped:
        notes.append(f"Left out, as nothing here uses it: parameter {', '.join(dropped)}.")
    return Manifest(
        name=str(name),
        created=created,
        target=plan.group("target"),
        drafter=drafter if kept else None,
        drafter_parameter_size=found.drafter_parameter_size if kept else None,
        documents=plan.group("document"),
        tokenizer=found.tokenizer,
        template=found.template,
        origin=plan.origin,
        licence=plan.licence,
        details=found.details,
        parameters=parameters,
        system=plan.system,
        info=found.info,
        adapter=plan.group("adapter") or None,
        projector=plan.group("projector") or None,
        messages=plan.messages,
        notes=tuple(dict.fromkeys(notes)),
        reference=plan.reference,
        draft=plan.draft,
        drafter_origin=plan.drafter_origin if kept else None,
    )


def _usable(values: Mapping[str, object], accepts: Accepts) -> tuple[Values, list[str]]:
    """The parameters that can be used, and the names of the others.

    Files of strangers set some of these: one that is unknown must not make the model unusable.
    """
    kept: Values = {}
    for name, value in values.items():
        if isinstance(value, bool | int | float | str | list) and accepts(name, value):
            kept[name] = value
    return kept, sorted(values.keys() - kept.keys())
