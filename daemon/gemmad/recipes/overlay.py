"""Puts what a Modelfile says over the plan of its base; pure."""

from collections.abc import Iterable
from dataclasses import replace

from gemmad.core import ByteCount, FileEntry, digest_of
from gemmad.recipes.wish import Overlay
from gemmad.sources.half import Content, Kind, SourceFile
from gemmad.sources.plan import Plan

TEMPLATE_FILE = "chat_template.jinja"
LICENCE_FILE = "LICENSE"
_NAME_CHARS = 80  # a longer licence is a text, not a name


def overlaid(plan: Plan, overlay: Overlay) -> Plan:
    """`plan` with all that `overlay` sets in place of its own."""
    files = plan.files
    if overlay.template is not None:
        files = _with(files, content("target", TEMPLATE_FILE, overlay.template))
    licence = plan.licence
    if overlay.licence and overlay.licence.strip():
        licence, files = _licensed(overlay.licence.strip(), licence, files)
    return replace(
        plan,
        files=files,
        licence=licence,
        parameters={**plan.parameters, **overlay.parameters},
        system=plan.system if overlay.system is None else overlay.system,
        messages=overlay.messages or plan.messages,
    )


def content(kind: Kind, name: str, text: str) -> SourceFile:
    """A file whose bytes are `text`."""
    data = text.encode()
    entry = FileEntry(digest_of(data), ByteCount(len(data)))
    return SourceFile(kind, name, entry, Content(data))


def _licensed(
    text: str, before: str | None, files: tuple[SourceFile, ...]
) -> tuple[str | None, tuple[SourceFile, ...]]:
    """The licence's name and the files with its text: a name stays a name, a text is a document."""
    if "\n" in text or len(text) > _NAME_CHARS:
        new = content("document", LICENCE_FILE, text)
        same = (text.encode(), f"{text}\n".encode())
        if any(file.entry.digest in map(digest_of, same) for file in files if _is_licence(file)):
            return before, files
        name = text.splitlines()[0].strip()[:_NAME_CHARS]
        return name, _with((file for file in files if not _is_licence(file)), new)
    if text.lower() == (before or "").lower():
        return before, files  # the base's own, whose text may lie beside it
    return text, tuple(file for file in files if not _is_licence(file))


def _is_licence(file: SourceFile) -> bool:
    return file.kind == "document" and file.name.startswith(LICENCE_FILE)


def _with(files: Iterable[SourceFile], new: SourceFile) -> tuple[SourceFile, ...]:
    """`files` with `new` in the place of its namesake."""
    others = [file for file in files if (file.kind, file.name) != (new.kind, new.name)]
    return (*others, new)
