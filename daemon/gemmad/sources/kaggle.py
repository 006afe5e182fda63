"""Models on Kaggle, fetched by Kaggle's own client (the optional extra `kaggle`), checked by us.

Kaggle names no content hashes, so its client brings the files to its cache; from there they are
hashed, inspected and taken over like any directory's.
"""

import importlib
from pathlib import Path

from gemmad.api.errors import PullFailed
from gemmad.core import Origin
from gemmad.sources.directory import drafter_half, target_half
from gemmad.sources.half import Half
from gemmad.sources.reference import Reference


class KaggleSource:
    """`kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]`."""

    def knows(self, reference: Reference) -> bool:
        """Whether the reference says `kaggle:`."""
        return reference.scheme == "kaggle"

    def target(self, reference: Reference) -> Half:
        """The target there; errors as of a directory's, and PullFailed when Kaggle refuses."""
        directory = _downloaded(reference)
        return target_half(directory, _origin(reference, directory))

    def drafter(self, reference: Reference) -> Half:
        """The drafter there; errors as of `target`."""
        directory = _downloaded(reference)
        return drafter_half(directory, _origin(reference, directory))

    def pair_of(self, _reference: Reference, _target: Half) -> Half | None:
        """None: name a drafter with --draft."""
        return None


def _origin(reference: Reference, directory: Path) -> Origin:
    """Kaggle's client keeps each version in a directory named by its number."""
    return Origin(str(reference), directory.name)


def _downloaded(reference: Reference) -> Path:
    """The directory into which Kaggle's client has brought the model's files.

    Raises:
        PullFailed: the client is not installed, or it failed.
    """
    try:
        kagglehub = importlib.import_module("kagglehub")
    except ImportError as error:
        raise PullFailed(
            "Kaggle's client is not installed.", fix="Install it: pip install 'gemma-home[kaggle]'"
        ) from error
    try:
        return Path(kagglehub.model_download(reference.place))
    except Exception as error:  # the client has no error type of its own for all that can happen
        raise PullFailed(
            f"Kaggle's client could not fetch {reference.place}: {error}.",
            fix="Is the name right, and is KAGGLE_USERNAME with KAGGLE_KEY set?",
        ) from error
