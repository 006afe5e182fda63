"""Writes a pair of any published shape with random weights, and puts it in a daemon's store.

    target/   config.json, generation_config.json, model.safetensors, tokenizer.json, template, ...
    drafter/  config.json, model.safetensors

Tensors are made on the GPU where there is one. The tokenizer is nano's, with a word of its own for
every id beyond nano's vocabulary, so that any id a random model chooses decodes to plain text.
"""

import asyncio
import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gemmarunner.models.drafter import Drafter
from gemmarunner.models.target import Target
from tests.bench import shapes

Shapes = dict[str, tuple[int, ...]]
_PIECE_BYTES = 256 << 20
_MARGIN_IDS = 1  # the last id ends an answer: a random model hardly ever chooses it
_COPIED = ("chat_template.jinja", "special_tokens_map.json", "tokenizer_config.json")


def write_pair(name: str, directory: Path) -> Path:
    """The pair of shape `name` lies in `directory`, in bf16."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    target, drafter = directory / "target", directory / "drafter"
    for folder in (target, drafter):
        folder.mkdir(parents=True)
    _write_json(target / "config.json", _wrapped(shapes.target_json(name)))
    _write_json(drafter / "config.json", shapes.drafter_json(name))
    _write_text_files(target, shapes.target_config(name).vocab_size)
    wanted = target_shapes(name)
    _write_weights(target / "model.safetensors", wanted, shapes.Synthetic(device, torch.bfloat16))
    made = shapes.Synthetic(device, torch.bfloat16, 1)
    _write_weights(drafter / "model.safetensors", drafter_shapes(name), made)
    return directory


def target_shapes(name: str) -> Shapes:
    """Every tensor of a target, by its name in a checkpoint."""
    built = _asked_for(lambda *how: Target(shapes.target_config(name), *how))
    return {f"model.{key}": shape for key, shape in built.items()}


def drafter_shapes(name: str) -> Shapes:
    """Every tensor of a drafter, by its name in a checkpoint."""
    return _asked_for(lambda *how: Drafter(shapes.drafter_config(name), *how))


def _asked_for(build: Callable[..., object]) -> Shapes:
    """What a model takes while it is built, without memory for it."""
    found: Shapes = {}

    def take(name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        found[name] = shape
        # A number that the model reads as such cannot come from a tensor without memory.
        return torch.ones(shape, device="cpu" if shape == (1,) else "meta", dtype=torch.bfloat16)

    build(take, torch.device("meta"), torch.bfloat16)
    return found


def _write_weights(path: Path, wanted: Shapes, made: shapes.Synthetic) -> None:
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in wanted.items():
        kind, size = ("I64", 8) if name.endswith("token_ordering") else ("BF16", 2)
        end = offset + math.prod(shape) * size
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in wanted.items():
            _write_tensor(file, made.take(name, shape))


def _write_tensor(file: BinaryIO, tensor: Tensor) -> None:
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    for begin in range(0, flat.numel(), _PIECE_BYTES):
        rest: memoryview = flat[begin : begin + _PIECE_BYTES].cpu().numpy().data
        while rest:
            rest = rest[file.write(rest) :]


def _wrapped(config: dict[str, Any]) -> dict[str, Any]:
    return {"architectures": ["Gemma4ForCausalLM"], "eos_token_id": 1, **config}


def _write_text_files(target: Path, vocab_size: int) -> None:
    source = shapes.NANO / "target"
    for name in _COPIED:
        shutil.copyfile(source / name, target / name)
    ends = {"eos_token_id": [vocab_size - _MARGIN_IDS], "temperature": 1.0}
    _write_json(target / "generation_config.json", {**ends, "top_k": 64, "top_p": 0.95})
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words |= {f"▁word{id}": id for id in range(len(words), vocab_size)}
    _write_json(target / "tokenizer.json", tokenizer)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def install(pair: Path, home: Path, name: str) -> None:
    """The daemon whose home is `home` serves the pair under `name`; its files are links.

    Their digests are made up from name and size: hashing gigabytes is no part of what is measured.
    """
    from gemmad.core import ByteCount, FileEntry, ModelName, Origin, digest_of
    from gemmad.inspection.inspector import inspect
    from gemmad.pulls.binding import manifest_of
    from gemmad.sources.half import Kind, SourceFile, Stored
    from gemmad.sources.plan import Plan
    from gemmad.store.disk import PUBLISHED_NS
    from gemmad.store.paths import StorePaths
    from gemmad.store.store import Store, now_text
    from gemmad.wire import PairFiles

    root = home / "store"
    store, paths = Store(root), StorePaths(root)
    files = []
    kinds: tuple[Kind, ...] = ("target", "drafter")
    for kind in kinds:
        for path in sorted((pair / kind).iterdir()):
            size = path.stat().st_size
            entry = FileEntry(digest_of(f"{kind}/{path.name} {size}".encode()), ByteCount(size))
            blob = paths.blob(entry.digest)
            blob.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, blob)
            os.utime(blob, ns=(PUBLISHED_NS, PUBLISHED_NS))
            files.append(SourceFile(kind, path.name, entry, Stored()))
    halves = {kind: {p.name: str(p) for p in (pair / kind).iterdir()} for kind in kinds}
    found = asyncio.run(inspect(PairFiles(target=halves["target"], drafter=halves["drafter"])))
    plan = Plan(tuple(files), Origin("synthetic", "0" * 40))
    store.commit(manifest_of(ModelName.parse(name), plan, found, now_text(), lambda *_: True))
