"""Banks of wording: lines of text files, split by hash into those for training and those held out.

A wording file holds sections of lines; the unit that is held out is the whole line, with all the
alternatives it spells out:

    # comment
    [section]
    !what is {k}?            -> never held out
    how (do|can) I {do}      -> "how do I {do}", "how can I {do}"
"""

import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar
from zlib import crc32

HELD_ONE_IN = 10
SMALLEST_SPLIT_BANK = 6
WORDING = Path(__file__).parent / "wording"

T = TypeVar("T")


class Clause(NamedTuple):
    """One line of wording: its identity and every form its alternatives give."""

    key: str
    forms: tuple[str, ...]


class Bank:
    """The clauses of one section; `seen` may be trained on, `held` only evaluated."""

    def __init__(self, name: str, lines: Sequence[str], noisy: bool = True) -> None:
        """Split the lines; a bank too small to lose a line keeps all of them.

        A line that shares a form with a seen line, but for the small words and the punctuation
        that noise adds or drops (`noisy`), is seen as well; so is one marked with `!`, as common
        as `{K} is {v}`, which users must not miss.
        """
        self.name = name
        core = _core if noisy else str
        marked = {f"{name}|{line[1:]}" for line in lines if line.startswith("!")}
        plain = [line.removeprefix("!") for line in lines]
        clauses = [Clause(f"{name}|{line}", expand(line)) for line in plain]
        splits = len(clauses) >= SMALLEST_SPLIT_BANK
        seen = [c for c in clauses if not (splits and is_held(c.key)) or c.key in marked]
        known = {core(form) for clause in seen for form in clause.forms}
        shared = [c for c in clauses if c not in seen and known.intersection(map(core, c.forms))]
        self.seen = seen + shared
        self.held = [c for c in clauses if c not in self.seen]


class Draw:
    """One stream of random choices under the rules of a split.

    `hold_values` asks for held-out values only, otherwise they are never drawn. `hold_frames` is
    the chance that a bank which has held-out clauses gives one of them; `held` collects those.
    """

    __slots__ = ("held", "hold_frames", "hold_values", "random", "rng")

    def __init__(self, rng: Random, hold_values: bool = False, hold_frames: float = 0.0) -> None:
        """Draw from `rng`, in the training distribution unless told otherwise."""
        self.rng = rng
        self.random = rng.random
        self.hold_values = hold_values
        self.hold_frames = hold_frames
        self.held: list[str] = []

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.random() < probability

    def choose(self, options: Sequence[T]) -> T:
        """Return one of the options, all equally likely."""
        return options[int(self.random() * len(options))]

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to limit - 1."""
        return int(self.random() * limit)

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """Return `count` different options in random order."""
        return self.rng.sample(options, count)

    def clause(self, bank: Bank) -> Clause:
        """Return a clause this split allows, and note it when it is held out."""
        if bank.held and self.hold_frames and self.random() < self.hold_frames:
            clause = self.choose(bank.held)
            self.held.append(clause.key)
            return clause
        return self.choose(bank.seen)

    def pick(self, bank: Bank) -> str:
        """Return one form of a clause this split allows."""
        forms = self.clause(bank).forms
        return forms[int(self.random() * len(forms))]


def _core(form: str) -> str:
    """Return the words of a form that noise neither adds nor drops."""
    found = re.sub(r"[.,;:?!]", " ", form.lower()).split()
    return " ".join(word for word in found if word not in _noise_words())


@cache
def _noise_words() -> frozenset[str]:
    return frozenset(words("noise", "ignored"))


def is_held(key: str, one_in: int = HELD_ONE_IN) -> bool:
    """Return whether the hash of `key` holds it out of training."""
    return crc32(key.encode()) % one_in == 0


def pair_is_held(first: str, second: str) -> bool:
    """Return whether two clauses, each free, are held out as a combination."""
    return is_held(f"{first}+{second}", 12)


def retry(make: Callable[[], T], accept: Callable[[T], bool]) -> T:
    """Return the first result that is accepted."""
    while True:
        result = make()
        if accept(result):
            return result


def expand(line: str) -> tuple[str, ...]:
    """Return every text that a line with (a|b|) alternatives stands for."""
    parts = re.split(r"\(([^()]*\|[^()]*)\)", line)
    options = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    texts = ("".join(choice) for choice in itertools.product(*options))
    return tuple(re.sub(r" (?='[sd] )", "", re.sub(r"  +", " ", t)).strip() for t in texts)


@cache
def sections(file: str) -> dict[str, list[str]]:
    """Return the lines of a wording file by section, without comments and blank lines."""
    found: dict[str, list[str]] = {}
    name = ""
    for raw in (WORDING / f"{file}.txt").read_text(encoding="utf-8").splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if re.fullmatch(r"\[[\w.]+\]", line):
            name = line[1:-1]
            found.setdefault(name, [])
        else:
            found[name].append(line)
    return found


@cache
def bank(file: str, section: str) -> Bank:
    """Return the bank of one section of a wording file."""
    return Bank(f"{file}.{section}", sections(file)[section], noisy=file != "slots")


def words(file: str, section: str) -> list[str]:
    """Return a section's entries, comma separated, as a plain list."""
    return [w.strip() for line in sections(file)[section] for w in line.split(",") if w.strip()]
