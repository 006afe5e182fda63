"""Readers of general markup (HTML, Mallard, POD, dictd, WML, plain text): files to paragraphs."""

import gzip
import html
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from train.corpus_fetch import Member

Flow = list[str]  # paragraphs, not yet cleaned, in reading order


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED = _names("pre script style nav table header footer head svg figure aside info")
_SKIPPED_CLASSES = _names(
    "navheader navfooter related sphinxsidebar toc footer highlight programlisting screen "
    "admonition-title contents headerlink synopsis refsynopsisdiv linklist bibliography "
    "sidebar menu versionmodified synopsisdiv qindex langs"
)
_BLOCKS = _names(
    "p li dd dt div section article h1 h2 h3 h4 h5 h6 body blockquote ul ol dl tr td item title "
    "desc page note list steps terms hr"
)
_VOID = _names("br hr img meta link input col area base wbr")


class _Prose(HTMLParser):
    """Collects the text of block elements; skips code, tables and navigation with all inside."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.flow: Flow = [""]
        self._skipped: list[str] = []  # open elements since the first skipped one

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = {name for key, value in attrs if key == "class" for name in (value or "").split()}
        if tag in _VOID:
            self._text(" ")
        elif self._skipped or tag in _SKIPPED or classes & _SKIPPED_CLASSES:
            # Only the same element's nesting is counted: HTML leaves many others unclosed.
            if not self._skipped or tag == self._skipped[0]:
                self._skipped.append(tag)
        elif tag in _BLOCKS:
            self.flow.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._text(" ")

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            if tag == self._skipped[0]:
                self._skipped.pop()
        elif tag in _BLOCKS:
            self.flow.append("")

    def handle_data(self, data: str) -> None:
        self._text(data)

    def _text(self, text: str) -> None:
        if not self._skipped:
            self.flow[-1] += text


def decoded(member: Member) -> str:
    """The file as text, unzipped when it is gzip; bytes that are not UTF-8 count as Latin-1."""
    raw = gzip.decompress(member.data) if member.data[:2] == b"\x1f\x8b" else member.data
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def web_pages(files: Iterable[Member]) -> Iterator[Flow]:
    """HTML or Mallard pages: one flow a page."""
    for file in files:
        parser = _Prose()
        parser.feed(decoded(file))
        parser.close()
        yield parser.flow


def plain_text(files: Iterable[Member]) -> Iterator[Flow]:
    """Text files with a blank line between paragraphs: one flow a file."""
    for file in files:
        yield re.split(r"\n\s*\n", decoded(file))


def perl_pod(files: Iterable[Member]) -> Iterator[Flow]:
    """Perl's documentation; a heading stays only where it is a question, as in the FAQ."""
    for file in files:
        for section in re.split(r"\n(?==head)", decoded(file)):
            heading, *rest = re.split(r"\n\s*\n", section)
            question = re.sub(r"^=head\d\s*", "", heading) if heading.endswith("?") else ""
            text = [part for part in rest if part[:1] not in ("=", " ", "\t")]
            if question and text:
                text[0] = f"{question} {text[0]}"
            yield [_without_pod(part) for part in text]


def _without_pod(text: str) -> str:
    for _ in range(3):  # codes nest: B<I<...>>
        text = re.sub(r"[BCEFILSXZ]<+\s*(?:[^<>|]*\|)?([^<>]*?)\s*>+", r"\1", text)
    return text


def dictionary(files: Iterable[Member]) -> Iterator[Flow]:
    """A dictd database: headword at the margin, its article indented; one flow an article."""
    for file in files:
        for entry in re.split(r"\n(?=\S)", decoded(file)):
            head, _, body = entry.partition("\n")
            body = re.sub(r"[{}]|^\s*(\d+\.\s*)?<[^>]*>|__", "", body, flags=re.MULTILINE)
            parts = [part.strip() for part in re.split(r"\n\s*\n", body) if part.strip()]
            parts = [part for part in parts if not re.match(r"\[|\(\d{4}|\(http", part)]
            if parts:
                yield [f"{head.strip().capitalize()}: {parts[0]}", *parts[1:]]


def jargon_file(files: Iterable[Member]) -> Iterator[Flow]:
    """The Jargon File: entries that begin ":headword: n."; one flow an entry."""
    for file in files:
        for entry in re.split(r"\n\s*\n\s*:(?=[^:\n]+:)", decoded(file))[1:]:
            head, _, body = entry.partition(":")
            parts = re.split(r"\n\s*\n", re.sub(r"[{}]|^\s*\d+\.\s*|\[[^\]]*\]", "", body))
            parts = [re.sub(r"^(\w+\. )+|/[^/\s]+/,?\s", "", part.strip()) for part in parts[1:]]
            if parts:
                yield [f"{head.capitalize()}: {parts[0]}", *parts[1:]]


def wesnoth_scenarios(files: Iterable[Member]) -> Iterator[Flow]:
    """Battle for Wesnoth's WML: the story and what its people say, one flow a scenario."""
    said = re.compile(r'\b(?:story|message|description|text|note)\s*=\s*_\s*"((?:[^"]|"")*)"')
    for file in files:
        text = [match.replace('""', '"') for match in said.findall(decoded(file))]
        text = [re.sub(r"^\.\.\. *", "", line) for line in text]
        yield [re.sub(r"<[^>]*>|[*~]", "", html.unescape(line)) for line in text]


_SKY_NAMES = {
    "<planet>": "Hestia", "<destination>": "Hestia", "<origin>": "New Boston", "<first>": "Alex",
    "<last>": "Reed", "<ship>": "Swallow", "<system>": "Arneb", "<day>": "the first of May",
    "<date>": "the first of May", "<payment>": "two thousand credits", "<fare>": "six passengers",
    "<cargo>": "a load of grain", "<commodity>": "grain", "<tons>": "ten tons", "<npc>": "Heron",
    "<bunks>": "six", "<passengers>": "some passengers", "<stopovers>": "Skymoot",
}  # fmt: skip


def sky_missions(files: Iterable[Member]) -> Iterator[Flow]:
    """Endless Sky's data files: narration, speech and choices of each mission or planet."""
    quoted = re.compile(r"^\s*(?:[a-z]+ )?([\"`])\s*(.+)\1\s*$")
    for file in files:
        for block in re.split(r"\n(?=[a-z])", decoded(file)):
            lines = [match[2] for line in block.split("\n") if (match := quoted.match(line))]
            flow = [_with_names(line).strip() for line in lines if " " in line]
            yield [line for line in flow if "<" not in line and not re.match(r"\(.*\)$", line)]


def _with_names(line: str) -> str:
    for mark, name in _SKY_NAMES.items():
        line = line.replace(mark, name)
    return line
