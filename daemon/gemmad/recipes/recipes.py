"""Composes the plan of a name: what a pull, a creation, a new drafter or a repair brings together.

A pull of a name is resolved in this order:
1. a source that knows the reference (the built-in pair, a hub, a directory, another store);
2. the catalogue: its FROM, its DRAFT, its parameters over the files' own;
3. a name in the store that was made of another place: that place again, and what was put over it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gemmad.api.errors import BadRequest, GemmaError
from gemmad.api.modelfile import Description
from gemmad.core import Manifest, Origin
from gemmad.recipes import uploads
from gemmad.recipes.drafters import (
    AUTO,
    NO_DRAFTER,
    NONE,
    Chosen,
    choose_drafter,
    fitting,
    named_drafter,
    required,
)
from gemmad.recipes.overlay import TEMPLATE_FILE, overlaid
from gemmad.recipes.places import Places, as_pulled, reference_of
from gemmad.recipes.wish import Creation, Overlay, Wish
from gemmad.sources.half import Half, Source, SourceFile
from gemmad.sources.plan import Plan
from gemmad.sources.reference import Reference
from gemmad.sources.stored import target_half

_LASTING = ("quantize", "draft_quantize")  # what a pull was asked for stays with the name
_BUILTIN = "builtin:"


class Recipes:
    """All methods block: they read files and ask other places."""

    def __init__(self, places: Places) -> None:
        self._places = places

    def asking_first(self, source: Source) -> "Recipes":
        """Recipes that ask `source` before all others."""
        return Recipes(self._places.asking_first(source))

    def pull(self, reference: Reference, wish: Wish) -> Plan:
        """What a pull of `reference` brings together; an earlier wish holds where this is silent.

        Raises:
            ModelNotFound: nobody knows it.
            PairMismatch: the named drafter does not fit.
            GemmaError: the place could not be asked, or has nothing to run.
        """
        before = self._places.stored(reference)
        draft = wish.draft or (before.draft if before else AUTO)
        kept = {k: v for k, v in (before.parameters if before else {}).items() if k in _LASTING}
        made = before if before and before.reference and not as_pulled(before) else None
        plan = self._pulled(reference, draft, made)
        return replace(plan, parameters={**plan.parameters, **kept, **wish.parameters}, draft=draft)

    def create(self, wanted: Creation) -> Plan:
        """What a creation brings together. Errors as of a pull."""
        plan = self._base(wanted)
        if wanted.draft_files:
            plan = _with_drafter(plan, uploads.drafter(wanted.draft_files))
        if adapter := self._adapter(wanted):
            plan = replace(plan, files=(*_without(plan.files, "adapter"), *adapter))
        return overlaid(plan, wanted.overlay)

    def draft(self, manifest: Manifest, text: str) -> Plan:
        """The stored pair with the drafter that `text` names. Errors as of a pull."""
        notes = tuple(note for note in manifest.notes if not note.startswith(NO_DRAFTER))
        target = replace(target_half(manifest), drafter=None, notes=notes)
        plan = _joined(target, Chosen(None), manifest.reference or manifest.name, text)
        return self._with_named(plan, text)

    def repair(self, manifest: Manifest) -> Plan:
        """The files of a stored name, from where they came, at the same commits.

        What no place has any more is planned as stored: it fails where it is needed.
        """
        found = {file.entry.digest: file for file in self._origins(manifest)}
        halves = target_half(manifest)
        files = (*halves.files, *(halves.drafter.files if halves.drafter else ()))
        planned = (
            replace(found[f.entry.digest], kind=f.kind, name=f.name)
            if f.entry.digest in found
            else f
            for f in files
        )
        return Plan(tuple(planned), manifest.origin, manifest=manifest)

    def _pulled(self, reference: Reference, draft: str, made: Manifest | None = None) -> Plan:
        if (source := self._places.source(reference)) is not None:  # 1
            return self._from_source(source, reference, draft)
        if (description := self._places.description(reference)) is not None:  # 2
            return self._described(reference, description, draft)
        if made is not None:  # 3
            return _put_over(self._pulled(reference_of(made.reference), draft), made)
        raise self._places.unknown(reference)

    def _from_source(self, source: Source, reference: Reference, draft: str) -> Plan:
        target = self._places.known_target(reference) or source.target(reference)
        chosen = choose_drafter(self._places, source, reference, target, draft)
        return _joined(target, chosen, str(reference), draft)

    def _described(self, reference: Reference, description: Description, draft: str) -> Plan:
        """What a catalogue's Modelfile brings together; its DRAFT is a default, not a wish."""
        base = reference_of(description.from_[0])
        own = description.draft if draft == AUTO and isinstance(description.draft, str) else draft
        plan = self._pulled(base, own if own in (AUTO, NONE) or own == draft else NONE)
        if own not in (AUTO, NONE, draft):
            plan = _with_fitting(plan, named_drafter(self._places, own))
        overlay = Overlay(
            parameters=description.values,
            system=description.system,
            template=description.chat_template,
            licence="\n".join(description.licences) or None,
        )
        return replace(overlaid(plan, overlay), reference=str(reference))

    def _base(self, wanted: Creation) -> Plan:
        draft = wanted.draft or AUTO
        if wanted.base is None:
            target = uploads.target(wanted.files)
            plan = _joined(target, Chosen(target.drafter), "", draft)
        elif (manifest := self._places.stored(wanted.base)) is not None:
            reference = manifest.reference or manifest.name
            half = target_half(manifest)
            plan = _joined(half, Chosen(half.drafter), reference, wanted.draft or manifest.draft)
        else:
            pulled = self._pulled(wanted.base, AUTO if draft == AUTO else NONE)
            return self._wished(replace(pulled, reference=_again(wanted.base)), draft)
        return self._wished(plan, draft)

    def _wished(self, plan: Plan, draft: str) -> Plan:
        if draft == NONE:
            files = _without(plan.files, "drafter")
            return replace(plan, files=files, drafter_origin=None, draft=NONE)
        return plan if draft == AUTO else self._with_named(replace(plan, draft=draft), draft)

    def _with_named(self, plan: Plan, text: str) -> Plan:
        return _with_drafter(plan, named_drafter(self._places, text))

    def _adapter(self, wanted: Creation) -> tuple[SourceFile, ...]:
        if wanted.adapter is None:
            return uploads.adapter(wanted.adapter_files)
        source = self._places.source(wanted.adapter, stored=True)
        if source is None:
            raise self._places.unknown(wanted.adapter)
        if (manifest := self._places.stored(wanted.adapter)) is not None:
            files = [file for file in target_half(manifest).files if file.kind == "adapter"]
        else:
            files = [*source.drafter(wanted.adapter).files]  # its files as they are, in one group
        if not files:
            raise BadRequest(f"{wanted.adapter} has no adapter.")
        return tuple(replace(file, kind="adapter") for file in files)

    def _origins(self, manifest: Manifest) -> Iterator[SourceFile]:
        """All files of the places a pair came from; a place that cannot be asked gives none."""
        halves: list[Half] = []
        for origin in filter(None, (manifest.origin, manifest.drafter_origin)):
            try:
                reference = _at(origin)
                source = self._places.source(reference)
                if source is None:
                    continue
                drafts = origin is manifest.drafter_origin
                halves.append((source.drafter if drafts else source.target)(reference))
            except GemmaError:
                continue
        for half in halves:
            yield from half.files
            yield from half.drafter.files if half.drafter else ()


def _joined(target: Half, chosen: Chosen, reference: str, draft: str) -> Plan:
    """The plan of a target and the drafter that was chosen for it."""
    drafter = chosen.half
    notes = (*target.notes, *(drafter.notes if drafter else ()))
    return Plan(
        files=(*target.files, *(drafter.files if drafter else ())),
        origin=target.origin,
        drafter_origin=drafter.origin if drafter and drafter.origin != target.origin else None,
        reference=reference,
        draft=draft,
        licence=target.licence,
        parameters=target.parameters,
        system=target.system,
        messages=target.messages,
        notes=(*notes, chosen.note) if chosen.note else notes,
    )


def _with_drafter(plan: Plan, drafter: Half) -> Plan:
    """`plan` with a drafter that was asked for.

    Raises:
        PairMismatch: it does not fit.
    """
    required(plan.files, drafter)
    return _drafted(plan, drafter)


def _with_fitting(plan: Plan, drafter: Half) -> Plan:
    """`plan` with a drafter when it fits, else with a note that says why not."""
    chosen = fitting(plan.files, drafter)
    if chosen.half is None:
        return replace(plan, notes=(*plan.notes, chosen.note or ""))
    return _drafted(plan, drafter)


def _drafted(plan: Plan, drafter: Half) -> Plan:
    return replace(
        plan,
        files=(*_without(plan.files, "drafter"), *drafter.files),
        drafter_origin=drafter.origin,
        notes=(*plan.notes, *drafter.notes),
    )


def _put_over(plan: Plan, made: Manifest) -> Plan:
    """`plan` with what a creation put over its base: everything but the base's weights."""
    overlay = Overlay(made.parameters, made.system, messages=made.messages)
    kept = tuple(file for file in target_half(made).files if _kept(file))
    taken = {(file.kind, file.name) for file in kept}
    others = tuple(file for file in plan.files if (file.kind, file.name) not in taken)
    return replace(overlaid(plan, overlay), files=(*others, *kept), reference=made.reference)


def _kept(file: SourceFile) -> bool:
    return file.kind in ("adapter", "document") or file.name == TEMPLATE_FILE


def _without(files: Iterable[SourceFile], kind: str) -> tuple[SourceFile, ...]:
    return tuple(file for file in files if file.kind != kind)


def _again(base: Reference) -> str:
    """What a later pull of a creation resolves; a path of this machine is nothing to keep."""
    return "" if base.scheme == "path" else str(base)


def _at(origin: Origin) -> Reference:
    """The place of `origin` at its commit.

    Raises:
        BadRequest: it came from no place that can be asked again.
    """
    reference = Reference.parse(origin.source.removeprefix(_BUILTIN))
    return replace(reference, revision=origin.revision) if reference.scheme == "hub" else reference
