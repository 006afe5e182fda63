"""Writes a pair as directories: DIR/target and DIR/drafter, each file as the pair has it.

A pair of safetensors is so in Hugging Face's layout; one of GGUF files is them, in their parts.
"""

import shutil
from pathlib import Path

from gemmad.api.errors import BadRequest
from gemmarunner.files import Files
from gemmarunner.models.loader import Progress


def write_files(files: Files, directory: Path, progress: Progress) -> None:
    """The files of one model are in the new `directory` under their names in the repository.

    Raises:
        BadRequest: a name is none of a file.
    """
    directory.mkdir(parents=True)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    done, total = 0, sum(sizes.values())
    for name, path in files.items():
        if Path(name).name != name or name.startswith("."):
            raise BadRequest(f"The model's file {name[:80]!r} has no plain name.")
        shutil.copyfile(path, directory / name)
        done += sizes[name]
        progress(done, total)
