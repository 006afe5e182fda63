"""The report of a training: kept on disk after every phase, so that a cut run still tells."""

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from train.card import card
from train.export import weight_bytes, write_json, write_parts


@dataclass(slots=True)
class Report:
    """Everything a training found out, and where it is written."""

    directory: Path
    parts: Path
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, **sections: Any) -> None:
        """Add sections and write the report anew."""
        self.values.update(sections)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.parts.mkdir(parents=True, exist_ok=True)
        for place in {self.directory, self.parts}:
            write_json(place / "report.json", self.values)

    def add_samples(self, text: str) -> None:
        """Write the transcripts."""
        for place in {self.directory, self.parts}:
            (place / "samples.txt").write_text(text)

    def publish(self) -> None:
        """Write the card and the carried parts from what there is so far."""
        self.add(pair_bytes=weight_bytes(self.directory))
        (self.directory / "README.md").write_text(card(self.values))
        write_parts(self.directory, self.parts)


def machine() -> dict[str, Any]:
    """Return what the training ran on."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }
