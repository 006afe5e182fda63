"""Readers of structured data (WordNet, R data, JSON and YAML records): records to paragraphs."""

import html
import json
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from train.corpus_fetch import Member
from train.corpus_markup import Flow, decoded


def wordnet(files: Iterable[Member]) -> Iterator[Flow]:
    """WordNet's glosses and examples; neighbours in the file, mostly related, share a paragraph."""
    for file in files:
        # Data rows start with the offset; the licence above them starts with blanks.
        rows = [line for line in decoded(file).split("\n") if re.match(r"\d{8} ", line)]
        entries = [entry for row in rows if (entry := _wordnet_entry(row))]
        for start in range(0, len(entries), 24):
            group = entries[start : start + 24]
            yield [" ".join(group[at : at + 4]) for at in range(0, len(group), 4)]


_ANIMALS, _PLANTS = "05", "20"  # lexicographer files: thousands of species, one line each


def _wordnet_entry(row: str) -> str:
    """One synset as sentences; "" for names and species without an example, which are lists."""
    data, _, gloss = row.partition(" | ")
    offset, lexicon, kind, hexadecimal, *fields = data.split()
    raw = fields[: 2 * int(hexadecimal, 16) : 2]
    words = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in raw]
    examples = re.findall(r'"([^"]{12,})"', gloss)
    meaning = re.split(r';\s*"|"', gloss)[0].strip(" ;:.")
    listed = words[0][:1].isupper() or (kind == "n" and lexicon in (_ANIMALS, _PLANTS))
    if not meaning or (listed and not examples):
        return ""
    said = [_definition(words[0], kind, meaning)]
    if len(words) > 1 and int(offset) % 2:
        said.append(f"You can also say {' or '.join(words[1:3])}.")
    return " ".join(said + [_example(text) for text in examples[:2]])


def _definition(word: str, kind: str, meaning: str) -> str:
    """The meaning as a sentence where its grammar allows one, else after a colon."""
    if kind == "v" and meaning[:1].islower() and "(" not in meaning[:2]:
        return f"To {word} means to {meaning}."
    if kind == "n" and re.match(r"(a|an|someone|something|any) ", meaning) and word[0].islower():
        return f"{'An' if word[0] in 'aeio' else 'A'} {word} is {meaning}."
    return f"{word[:1].upper()}{word[1:]}: {meaning}."


def _example(text: str) -> str:
    text = text.strip(" ;")
    sentence = text[:1].isupper()
    return (text if sentence else f"For example: {text}").rstrip(".") + (
        "" if text[-1:] in "!?" else "."
    )


def r_text(files: Iterable[Member]) -> Iterator[Flow]:
    """Novels kept as lines in R's lazy-load database: one flow a chapter.

    The file is a row of chunks, each a 4-byte length and a zlib stream of R's XDR format, where
    a string is a flag word ending in 9, a 4-byte length and the bytes.
    """
    for file in files:
        data = file.data
        while len(data) > 4:
            stream = zlib.decompressobj()
            lines = list(_r_strings(stream.decompress(data[4:])))
            data = stream.unused_data
            for chapter in re.split(r"\n(?:chapter|volume) [^\n]*\n", "\n".join(lines), flags=re.I):
                yield [part.replace("_", "") for part in re.split(r"\n\s*\n", chapter)]


def _r_strings(raw: bytes) -> Iterator[str]:
    flag = re.compile(rb"\x00(?:\x04\x00|\x00\x80)\x09")
    at = 0
    while match := flag.search(raw, at):
        size = int.from_bytes(raw[match.end() : match.end() + 4], "big")
        at = match.end() + 4 + size
        yield raw[match.end() + 4 : at].decode("utf-8", "replace")


_LOST_DASH = re.compile(
    r"(?<=[a-z]{3})-(?=(?:the|to|and|a|of|in|we|if|that|this|is|are|as|for|but|not|or|with|so|it|I|"
    r"our|from|all|by|who|which|have|has|will|because|when|without|at)\b(?!-))"
)


def speeches(files: Iterable[Member]) -> Iterator[Flow]:
    """Addresses since 1934, when they were written to be heard on the radio; one flow a speech."""
    for file in files:
        year = re.search(r"(\d{4})[^/]*$", file.path)
        if year and int(year[1]) >= 1934:
            # The source has lost its line breaks; headings in capitals remain between sentences.
            text = re.sub(r"\b(?:[IVX]+\. )?(?:[A-Z]{3,}[ ,:]*){2,}(?=[A-Z])", "", decoded(file))
            yield [_LOST_DASH.sub(" - ", text)]


def factbook(files: Iterable[Member]) -> Iterator[Flow]:
    """The World Factbook's long texts, which are prose; one flow a country."""
    for file in files:
        texts: Flow = []
        for value in _strings(json.loads(decoded(file))):
            if len(value) > 120:
                texts += re.split(r"<br\s*/?>|</?p>|\n", html.unescape(value))
        plain = [re.sub(r"<[^>]*>", " ", text).strip() for text in texts]
        yield [_fact(text) for text in plain if len(text) > 100]


def _fact(text: str) -> str:
    """Full stop and capital added; family names, which the book sets in capitals, made plain."""
    text = re.sub(r"^note(?: \d)?: ", "", text.replace("--", "-"))
    name = re.compile(r"\b([A-Z][a-z.-]+ )([A-Z]{4,})\b")
    text = name.sub(lambda match: match[1] + match[2].capitalize(), text)
    return text[:1].upper() + text[1:] + ("" if text[-1:] in ".!?" else ".")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


_ASKED = ("How do I make {}?", "How is {} made?", "What do I need to make {}?", "A way to make {}.")


def recipes(files: Iterable[Member]) -> Iterator[Flow]:
    """Recipes told as a question, what is needed and the steps; one flow a recipe."""
    for file in files:
        for number, recipe in enumerate(json.loads(decoded(file)).values()):
            title = re.sub(r"\s*\(.*?\)", "", recipe["title"]).strip()
            needed = [_ingredient(text) for text in recipe["ingredients"]]
            listed = ", ".join(text for text in needed if text)
            steps = [_sentence(step) for step in recipe["steps"]]
            yield [f"{_ASKED[number % 4].format(title)} You need {listed}.", " ".join(steps)]


def _ingredient(text: str) -> str:
    text = re.sub(r"\s*\([^)]*\)|<[^>]*>", "", text)
    return re.sub(r"\s+", " ", text).strip(" .,;")


def _sentence(text: str) -> str:
    text = re.sub(r"\(\s*[/,]?\s*\)|<[^>]*>", "", text).strip()
    return text if text[-1:] in ".!?" else f"{text}."


def talk(files: Iterable[Member]) -> Iterator[Flow]:
    """ChatterBot's YAML of short exchanges: one paragraph a question with one of its answers."""
    for file in files:
        pairs: Flow = []
        asked = ""
        for line in decoded(file).split("\n"):
            match = re.match(r"(- |  )- (.*)", line)
            said = match[2].strip().strip("'\"") if match else ""
            if match and match[1] == "- ":
                asked = said if said[-1:] in ".?!" else f"{said}."
            elif match and asked:
                pairs.append(f"{asked} {said if said[-1:] in '.?!' else said + '.'}")
        random.Random(file.path).shuffle(pairs)
        yield pairs
