"""Writes the pair as Hugging Face repositories and in parts small enough to carry.

    OUT/target/    config.json, generation_config.json, model.safetensors, tokenizer files
    OUT/drafter/   config.json, model.safetensors
    OUT/report.json, OUT/samples.txt, OUT/README.md
    PARTS/part-00, part-01, ...   one tar archive of the above, cut at 15 MiB
    PARTS/parts.json              the sha256 of the archive and of each part

`python -m train.export --join PARTS OUT` puts the archive together again and unpacks it.
"""

import argparse
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from train.model import Drafter, Target
from train.shapes import drafter_config, generation_config, target_config

PART_BYTES = 15 << 20
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
TEMPLATE = Path(__file__).parents[1] / "gemmamodelfiles/nano/target/chat_template.jinja"


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def export_target(model: Target, tokenizer: Path, directory: Path) -> None:
    """Write the target with its tokenizer, in bf16."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", target_config(model.shape))
    write_json(directory / "generation_config.json", generation_config())
    _save(model, directory)
    _copy_tokenizer(tokenizer, directory)


def _copy_tokenizer(tokenizer: Path, directory: Path) -> None:
    """Copy the tokenizer's files, the large one without its white space, and the chat template."""
    whole = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    compact = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    (directory / "tokenizer.json").write_text(compact, encoding="utf-8")
    for source in (*(tokenizer / name for name in TOKENIZER_FILES), TEMPLATE):
        if source.exists():
            shutil.copyfile(source, directory / source.name)


def export_drafter(drafter: Drafter, target: Target, directory: Path) -> None:
    """Write the drafter in bf16; its token ordering stays i64."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", drafter_config(drafter.shape, target.shape))
    _save(drafter, directory)


def _save(model: nn.Module, directory: Path) -> None:
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16 if tensor.is_floating_point() else None)
        for name, tensor in model.state_dict().items()
    }
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    path = directory / "model.safetensors"
    save_file(contiguous, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes for the owner alone


def weight_bytes(directory: Path) -> int:
    """Return the size of the target and drafter directories together."""
    files = [p for part in ("target", "drafter") for p in (directory / part).rglob("*")]
    return sum(p.stat().st_size for p in files if p.is_file())


def write_parts(directory: Path, parts: Path) -> None:
    """Cut one archive of `directory` into parts, with their sums."""
    parts.mkdir(parents=True, exist_ok=True)
    for old in parts.glob("part-*"):
        old.unlink()
    archive = _archive(directory, leave_out=parts)
    sums = {"archive": hashlib.sha256(archive).hexdigest()}
    for number, at in enumerate(range(0, len(archive), PART_BYTES)):
        name, part = f"part-{number:02d}", archive[at : at + PART_BYTES]
        (parts / name).write_bytes(part)
        sums[name] = hashlib.sha256(part).hexdigest()
    write_json(parts / "parts.json", sums)


def _archive(directory: Path, leave_out: Path) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and leave_out not in path.parents:
                archive.add(path, path.relative_to(directory))
    return held.getvalue()


def join_parts(parts: Path, directory: Path) -> None:
    """Unpack the archive that the parts hold into `directory`.

    Raises:
        ValueError: a part or the whole is not what was written.
    """
    sums = json.loads((parts / "parts.json").read_text())
    names = sorted(name for name in sums if name != "archive")
    archive = b"".join((parts / name).read_bytes() for name in names)
    if hashlib.sha256(archive).hexdigest() != sums["archive"]:
        wrong = [
            n for n in names if hashlib.sha256((parts / n).read_bytes()).hexdigest() != sums[n]
        ]
        raise ValueError(f"The parts in {parts} are damaged: {', '.join(wrong) or 'order'}.")
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as held:
        held.extractall(directory, filter="data")


def main() -> None:
    """Join carried parts into a directory."""
    parser = argparse.ArgumentParser(prog="python -m train.export", description=main.__doc__)
    parser.add_argument("--join", nargs=2, type=Path, required=True, metavar=("PARTS", "OUT"))
    parts, directory = parser.parse_args().join
    join_parts(parts, directory)
    print(f"Joined {parts} into {directory}: {weight_bytes(directory)} bytes of pair.")


if __name__ == "__main__":
    main()
