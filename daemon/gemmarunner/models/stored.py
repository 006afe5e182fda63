"""What dtype and size a model's files have, and the dtype it runs in on a device."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from gemmad.api.errors import LoadFailed
from gemmarunner.models.checkpoint import Checkpoint
from gemmarunner.models.gguf_file import is_gguf, read_model
from gemmarunner.models.gguf_weights import model_bytes, stored_dtype
from gemmarunner.models.linear import fast_bf16, packs_half
from gemmarunner.native.library import library

# Below this float32 costs nothing that matters, and verifying drafts is exact in it.
_SMALL_BYTES = 256 * 2**20


class Stored(NamedTuple):
    """A model's weights as its files have them."""

    dtype: torch.dtype  # the widest floating tensor speaks for all
    nbytes: int
    held_bytes: int | None  # in memory, where the dtype it runs in does not say so


def stored_weights(files: Mapping[str, Path]) -> Stored:
    """Dtype and size of the weights of these files.

    Raises:
        LoadFailed: a file is missing or damaged, or holds no weights.
    """
    if is_gguf(files):
        model = read_model(files)
        dtype, nbytes = stored_dtype(model), model_bytes(model)
        return Stored(dtype, nbytes, nbytes if dtype is not torch.float32 else None)
    checkpoint = Checkpoint(files)
    sizes = {name: checkpoint.nbytes(name) for name in checkpoint.names}
    floating = {n: size for n, size in sizes.items() if checkpoint.dtype(n).is_floating_point}
    if not floating:
        raise LoadFailed("The weights hold no tensors.", fix="Pull the model again.")
    widest = max(floating, key=floating.__getitem__)
    return Stored(checkpoint.dtype(widest), sum(sizes.values()), None)


def choose_dtype(
    device: str, checkpoint_dtype: torch.dtype, weight_bytes: int, free_bytes: int
) -> torch.dtype:
    """The dtype to run in, of weights that take `weight_bytes` as stored.

    1. A small model (`_SMALL_BYTES`) runs in float32 anywhere, where texts stay exact; and any
       model by native kernels, which keep matrices as they are stored, packed ones too.
    2. An accelerator, or a CPU with fast bf16, runs the checkpoint as it is.
    3. Another CPU emulates bf16 and is several times slower in it, so float32, as long as that
       takes no more than half of the free memory; else as stored. Where matrices are kept as
       two bytes (see `linear.py`), float32 is about computing only and takes no more than stored.
    """
    on_cpu = device.startswith("cpu")
    if weight_bytes <= _SMALL_BYTES or (on_cpu and library() is not None):  # 1
        return torch.float32
    if not on_cpu or fast_bf16():  # 2
        return checkpoint_dtype
    widened = 1 if packs_half() else 4 // checkpoint_dtype.itemsize
    return torch.float32 if weight_bytes * widened <= free_bytes // 2 else checkpoint_dtype  # 3
