"""A Modelfile as a value: what a model is made of, read from Ollama's grammar and written in it."""

import codecs
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gemmad.api import parameters as known
from gemmad.api.errors import BadRequest
from gemmad.api.instructions import ROLES, Instruction, ModelfileError, instructions, written

__all__ = ["NO_DRAFTER", "Description", "ModelfileError", "parse", "render"]

NO_DRAFTER = "none"  # what DRAFT says to refuse a drafter
MAX_CHARS = 4 << 20  # templates and licences are long, but not so long

_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FILES = (".gguf", ".safetensors", "/", "\\")
_GO_TEMPLATE = re.compile(r"\{\{-?\s*(?:\.|\$|(?:if|range|with|end|else|template|block)\b)")


@dataclass(frozen=True, slots=True)
class Description:
    """What FROM, DRAFT and the other instructions say; references are as their author wrote them.

    `draft` is None when nothing is said (the drafter is looked for), `"none"` when it is refused,
    one reference, or the several files of a split one. The values of `parameters` are text, of
    `stop` a list; `values` has them typed.
    """

    from_: tuple[str, ...]
    draft: str | tuple[str, ...] | None = None
    adapter: str | None = None
    parameters: dict[str, list[str] | str] = field(default_factory=dict)
    system: str | None = None
    template: str | None = None
    licences: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()  # role and text
    requires: str | None = None
    renderer: str | None = None
    parser: str | None = None

    @property
    def drafts(self) -> tuple[str, ...]:
        """The references of the drafter: several for a split one, none when refused or not said."""
        if self.draft is None or self.draft == NO_DRAFTER:
            return ()
        return (self.draft,) if isinstance(self.draft, str) else self.draft

    @property
    def values(self) -> dict[str, known.Value]:
        """The parameters typed, without those that have no effect here.

        Raises:
            BadRequest: one is unknown or not of its type; never for what `parse` returned.
        """
        return known.typed(self.parameters)

    @property
    def chat_template(self) -> str | None:
        """The template, unless it is in Ollama's Go syntax, which this program does not run."""
        return None if self.template and _GO_TEMPLATE.search(self.template) else self.template

    @property
    def notes(self) -> tuple[str, ...]:
        """What was accepted and has no effect, a sentence each."""
        return tuple(_notes(self))


def parse(text: str | bytes) -> Description:
    """What the Modelfile says; bytes may be UTF-8 or, with a byte order mark, UTF-16.

    Raises:
        ModelfileError: it is not a Modelfile; the message names the line.
    """
    if isinstance(text, bytes):
        text = _decoded(text)
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_CHARS:
        raise ModelfileError(f"is longer than {MAX_CHARS} characters.")
    found = instructions(text)
    values = {word: _all(found, word) for word in ("FROM", "DRAFT", "ADAPTER", "LICENSE")}
    description = Description(
        from_=_bases(found),
        draft=_draft(found),
        adapter=values["ADAPTER"][-1] if values["ADAPTER"] else None,
        parameters=_parameters(found),
        system=_last(found, "SYSTEM"),
        template=_last(found, "TEMPLATE"),
        licences=tuple(values["LICENSE"]),
        messages=tuple(_messages(found)),
        requires=_last(found, "REQUIRES"),
        renderer=_last(found, "RENDERER"),
        parser=_last(found, "PARSER"),
    )
    _check(found)
    return description


def render(description: Description) -> str:
    """The Modelfile that `parse` reads as the same description."""
    return "".join(f"{head} {written(value)}\n" for head, value in _lines(description))


def _lines(description: Description) -> Iterator[tuple[str, str]]:
    refused = (NO_DRAFTER,) if description.draft == NO_DRAFTER else ()
    yield from (("FROM", each) for each in description.from_)
    yield from (("DRAFT", each) for each in refused or description.drafts)
    if description.adapter is not None:
        yield "ADAPTER", description.adapter
    for name, value in description.parameters.items():
        yield from (
            (f"PARAMETER {name}", each) for each in ([value] if isinstance(value, str) else value)
        )
    for word in ("SYSTEM", "TEMPLATE", "RENDERER", "PARSER", "REQUIRES"):
        if (text := getattr(description, word.lower())) is not None:
            yield word, text
    yield from (("MESSAGE " + role, text) for role, text in description.messages)
    yield from (("LICENSE", each) for each in description.licences)


def _decoded(data: bytes) -> str:
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise ModelfileError("is not text in UTF-8.", fix="Save it as UTF-8.") from None


def _all(found: list[Instruction], word: str) -> list[str]:
    return [each.value for each in found if each.word == word]


def _last(found: list[Instruction], word: str) -> str | None:
    values = _all(found, word)
    return values[-1] if values else None


def _bases(found: list[Instruction]) -> tuple[str, ...]:
    if bases := tuple(_all(found, "FROM")):
        return bases
    raise ModelfileError(
        "has no FROM line.",
        fix="Begin it with FROM and a name, a directory, a GGUF file or hf.co/OWNER/REPO.",
    )


def _draft(found: list[Instruction]) -> str | tuple[str, ...] | None:
    drafts = [NO_DRAFTER if text.lower() == NO_DRAFTER else text for text in _all(found, "DRAFT")]
    if len(drafts) > 1:
        return tuple(drafts)
    return drafts[0] if drafts else None


def _parameters(found: list[Instruction]) -> dict[str, list[str] | str]:
    parameters: dict[str, list[str] | str] = {}
    stops: list[str] = []
    for each in found:
        if each.word != "PARAMETER":
            continue
        try:
            known.check(each.name, each.value)
        except BadRequest as error:
            raise ModelfileError(
                f"cannot be used: {error.message}", line=each.line, fix=error.fix
            ) from None
        if each.name == known.LIST:
            stops.append(each.value)
        parameters[each.name] = stops if each.name == known.LIST else each.value
    return parameters


def _messages(found: list[Instruction]) -> Iterator[tuple[str, str]]:
    for each in found:
        if each.word == "MESSAGE":
            if each.name not in ROLES:
                raise ModelfileError(
                    f"has a message of {each.name[:40]!r}.",
                    line=each.line,
                    fix=f"Use one of: {', '.join(ROLES)}.",
                )
            yield each.name, each.value


def _check(found: list[Instruction]) -> None:
    """What a line must not say because of the lines before it."""
    seen: dict[str, str] = {}
    for each in found:
        if each.word not in ("FROM", "DRAFT", "ADAPTER"):
            continue
        if not each.value.strip():
            raise ModelfileError(f"has an empty {each.word}.", line=each.line)
        if each.word == "ADAPTER" and "ADAPTER" in seen.values():
            raise ModelfileError("names a second ADAPTER; a model takes one.", line=each.line)
        if each.word == "DRAFT" and each.value.lower() == NO_DRAFTER:
            continue
        place = _place(each.value)
        # A name may serve twice: its pair has both halves. A file is one of them.
        if place in seen and (each.word == seen[place] or _is_path(each.value)):
            raise ModelfileError(
                f"has {each.word} {each.value[:80]}, which {seen[place]} names too.", line=each.line
            )
        seen[place] = each.word
    drafts = [each for each in found if each.word == "DRAFT"]
    if len(drafts) > 1 and any(each.value.lower() == NO_DRAFTER for each in drafts):
        raise ModelfileError("refuses the drafter beside naming one.", line=drafts[-1].line)


def _place(reference: str) -> str:
    """Equal for two spellings of one path: `./a/`, `a` and `b/../a`."""
    return posixpath.normpath(reference.strip().replace("\\", "/"))


def _is_path(reference: str) -> bool:
    return reference.startswith((".", "/", "~", "\\")) or reference.lower().endswith(_FILES)


def _notes(description: Description) -> Iterator[str]:
    for word in ("RENDERER", "PARSER"):
        if text := getattr(description, word.lower()):
            yield f"{word} {text} has no effect: the chat template decides."
    if description.template is not None and description.chat_template is None:
        yield "TEMPLATE is in Ollama's Go syntax and has no effect: the model's own is used."
    if names := [name for name in description.parameters if name in known.IGNORED]:
        yield f"PARAMETER {', '.join(names)} has no effect here."
