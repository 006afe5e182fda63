"""Writes a pair as directories: DIR/target and DIR/drafter, each file as the pair has it.

A pair of safetensors is so in Hugging Face's layout; one of GGUF files is unpacked into it.
"""

import shutil
from pathlib import Path

from gemmad.api.errors import BadRequest
from gemmarunner.export_unpacked import write_unpacked
from gemmarunner.files import Files
from gemmarunner.models.gguf_file import is_gguf
from gemmarunner.models.weights import Progress

UNPACKED_NOTE = "The GGUF weights were unpacked, so they take more room, and are no more precise."


def write_half(
    files: Files, directory: Path, progress: Progress, *, is_drafter: bool
) -> str | None:
    """A target or drafter is in the new `directory` as transformers reads it; returns what a
    person should know of it.

    Raises:
        BadRequest: a name is none of a file, or the model cannot be said in that layout.
        LoadFailed: its files are damaged.
    """
    if is_gguf(files):
        write_unpacked(files, directory, progress, is_drafter=is_drafter)
        return UNPACKED_NOTE
    _copy(files, directory, progress)
    return None


def _copy(files: Files, directory: Path, progress: Progress) -> None:
    directory.mkdir(parents=True)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    done, total = 0, sum(sizes.values())
    for name, path in files.items():
        if Path(name).name != name or name.startswith("."):
            raise BadRequest(f"The model's file {name[:80]!r} has no plain name.")
        shutil.copyfile(path, directory / name)
        done += sizes[name]
        progress(done, total)
