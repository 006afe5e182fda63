"""The built-in pair: a directory shipped with the program, pulled without a network.

nano/target/   config.json, model.safetensors, tokenizer.json, chat_template.jinja, ...
nano/drafter/  config.json, model.safetensors
nano/          LICENSE, README.md
"""

from dataclasses import replace
from pathlib import Path

from gemmad.api.errors import PullFailed, Unsupported
from gemmad.core import ModelName, Origin
from gemmad.sources.directory import target_half
from gemmad.sources.half import Half
from gemmad.sources.reference import Reference

NAME = "nano"
_FILES = ("config.json", "model.safetensors", "tokenizer.json")  # without these it is no target


class BuiltinSource:
    """Serves the one name `nano` from a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def knows(self, reference: Reference) -> bool:
        """Whether the reference is the name `nano`."""
        return reference.scheme == "name" and reference.name.key == ModelName((NAME,))

    def target(self, _reference: Reference) -> Half:
        """The built-in target, with its drafter.

        Raises:
            PullFailed: the installation lacks the pair's files.
        """
        for name in _FILES:
            if not (self._directory / "target" / name).is_file():
                raise PullFailed(
                    f"The built-in pair '{NAME}' is not whole: target/{name} is missing.",
                    fix="Install the program again.",
                )
        found = target_half(self._directory)
        origin = Origin(f"builtin:{NAME}", found.origin.revision)
        drafter = found.drafter and replace(found.drafter, origin=origin)
        return replace(found, origin=origin, licence="Apache-2.0", drafter=drafter)

    def drafter(self, reference: Reference) -> Half:
        """The built-in drafter.

        Raises:
            PullFailed: the installation lacks the pair's files.
            Unsupported: this installation's pair has no drafter.
        """
        if (found := self.target(reference).drafter) is None:
            raise Unsupported(f"The built-in pair '{NAME}' has no drafter.")
        return found

    def pair_of(self, _reference: Reference, _target: Half) -> Half | None:
        """None: the drafter lies with the target."""
        return None
