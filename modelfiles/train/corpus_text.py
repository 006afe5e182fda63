"""Turns paragraphs of any origin into plain, deduplicated English documents."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

LONGEST_PARAGRAPH = 2_000  # characters
SHORTEST_PARAGRAPH = 60
SHORTEST_LINE = 16  # where people talk
LONGEST_DOCUMENT = 3_000
SHORTEST_DOCUMENT = 120

_PLAIN = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"',
        "\u2013": "-", "\u2014": " - ", "\u2212": "-", "\u2026": "...", "\u00a0": " ",
        "\u202f": " ", "\u2009": " ", "\u00ad": "", "\u200b": "", "\u00b6": "", "\ufeff": "",
        "\u00bd": " 1/2", "\u00bc": " 1/4", "\u00be": " 3/4", "\u2153": " 1/3", "\u2154": " 2/3",
        "\u215b": " 1/8", "\u00b0": " degrees ", "\u02da": " degrees ", "\u00ba": " degrees ",
        "\u2010": "-", "\u2011": "-", "\u2192": "->",
        "\u00d7": "x", "\u2022": "", "\u2032": "'", "\u2044": "/",
    }
)  # fmt: skip
_COMMON_WORDS = (
    "the of and to a in is it you that he was for on are with as i his they be at one have this "
    "from or had by not but what all were we when your can said there use an each which she do how "
    "their if will up other about out many then them these so some her would make like him into "
    "has look two more no way could my than been who its now did get may any such where only "
    "should our me must us also does very just over after most before through"
)
_COMMON = frozenset(_COMMON_WORDS.split())
_ENDS = re.compile(r"[.!?][\"')\]]*$")
_SPOKEN_ENDS = re.compile(r"[.!?,:;-][\"')\]]*$")  # a novel's "he said," before the next paragraph
_BOILERPLATE = re.compile(
    r"copyright|\(c\)|all rights reserved|licensed under|licen[cs]e agreement|warrant(y|ies)\b|"
    r"free software foundation|general public licen|permission is (hereby )?granted|"
    r"https?:|www\.|\bftp:|\w@\w+\.\w|lorem ipsum|table of contents|click here",
    re.IGNORECASE,
)
_CONTROL = re.compile(
    r"<\||\|>|</?(bos|eos|pad|unk|mask|s)>|<(start|end)_of_\w+>|<unused|\[multimodal\]|\x00"
)
_ODD = re.compile(r"[^A-Za-z0-9\u00c0-\u017f\s.,;:!?'\"()\-]")


def normalise(text: str) -> str:
    """One line: quotes and dashes of a keyboard, single spaces, no space before a comma."""
    text = unicodedata.normalize("NFC", text).translate(_PLAIN)
    text = re.sub(r"``(.*?)''", r'"\1"', text)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" ([,.;!?])(?=\s|$)", r"\1", text).strip()


def has_control_string(text: str) -> bool:
    """True when the text holds anything that a Gemma tokenizer could take for a control token."""
    return _CONTROL.search(text) is not None


def reads_as_english(paragraph: str, spoken: bool) -> bool:
    """True for whole sentences of English prose; code, tables, menus and licences are not.

    `spoken` text (novels, dialogue) may have short lines with many marks, such as "No!" he said.
    """
    words = re.findall(r"[a-z']+", paragraph.lower())
    shortest = SHORTEST_LINE if spoken else SHORTEST_PARAGRAPH
    if not shortest <= len(paragraph) <= LONGEST_PARAGRAPH or not words:
        return False
    ends = _SPOKEN_ENDS if spoken else _ENDS
    if not ends.search(paragraph) or not re.match(r"[A-Z0-9\"'(\[]", paragraph):
        return False
    letters = sum(character.isalpha() or character == " " for character in paragraph)
    common = sum(word in _COMMON for word in words)
    return (
        letters >= (0.75 if spoken else 0.86) * len(paragraph)
        and len(_ODD.findall(paragraph)) <= 0.015 * len(paragraph)
        and sum(character > "\x7f" for character in paragraph) <= 0.02 * len(paragraph)
        and (len(words) < 10 or common >= 0.2 * len(words))
        and not _BOILERPLATE.search(paragraph)
    )


def split_long(paragraph: str, target: int = 900) -> list[str]:
    """The paragraph whole when it is short enough, else cut at ends of sentences near `target`."""
    if len(paragraph) <= LONGEST_PARAGRAPH:
        return [paragraph]
    pieces = [""]
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z\"])", paragraph):
        if len(pieces[-1]) > target:
            pieces.append("")
        pieces[-1] = f"{pieces[-1]} {sentence}".strip()
    return pieces


class Deduplicator:
    """Remembers every paragraph by a hash that ignores case, digits and punctuation."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def is_new(self, paragraph: str) -> bool:
        """True the first time a paragraph, up to case, digits and punctuation, is shown."""
        letters = re.sub(r"[^a-z]+", "", paragraph.lower())
        key = hashlib.blake2b(letters.encode(), digest_size=12).digest()
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def clean(flow: Iterable[str], spoken: bool, seen: Deduplicator) -> Iterator[str]:
    """The flow's paragraphs that read as English and were not seen before, in their order."""
    for raw in flow:
        for paragraph in split_long(normalise(raw)):
            if not reads_as_english(paragraph, spoken) or has_control_string(paragraph):
                continue
            # Short lines of dialogue repeat by nature; only longer ones are worth a hash.
            if len(paragraph) < 40 or seen.is_new(paragraph):
                yield paragraph


def documents(paragraphs: Iterable[str]) -> Iterator[str]:
    """Consecutive paragraphs packed, a blank line between, into documents of 120 to 3,000."""
    held: list[str] = []
    size = 0
    for paragraph in paragraphs:
        if held and size + len(paragraph) > LONGEST_DOCUMENT:
            yield "\n\n".join(held)
            held, size = [], 0
        held.append(paragraph)
        size += len(paragraph) + 2
    if size - 2 >= SHORTEST_DOCUMENT:
        yield "\n\n".join(held)
