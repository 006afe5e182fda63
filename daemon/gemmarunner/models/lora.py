"""Low-rank adapters (LoRA) merged into a target's matrices while these are taken.

    adapter_config.json         rank r, alpha, see `lora_config.py`
    adapter_model.safetensors   M.lora_A.weight [r, in], M.lora_B.weight [out, r] of each module M

M is a module's name as PEFT saw it, such as base_model.model.model.language_model.layers.0.mlp.
down_proj. The matrix becomes W + alpha / r * B A, computed in float32 and rounded once. A packed W
is unpacked for it and stays so: packed again it would lose what the adapter added.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gemmad.api.errors import LoadFailed
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.header import BadHeader, Place, read_header
from gemmarunner.models.lora_config import LoraConfig, read_lora_config
from gemmarunner.models.weights import Matrix, Table, Take, take_matrices, take_matrix, take_table

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ACCEPTANCE_NOTE = (
    "An adapter is merged into the target. The drafter does not know it, so that fewer of its "
    "drafts may be accepted; answers are the adapted model's own."
)
_UNPACKED_NOTE = "The matrices that the adapter changes are kept unpacked and take more memory."
_FIX = "Was it made for this model, and is it a LoRA in safetensors?"
_NAME = re.compile(
    r"(?:base_model\.model\.)?(?:model\.)?(?:language_model\.)?(?:model\.)?"
    r"(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight"
)
_MLP = ("gate_proj", "up_proj", "down_proj")
_MAX_CONFIG_BYTES = 1 << 20

Files = Mapping[str, Path]


class Delta(NamedTuple):
    """What is added to one matrix: `scaling * up @ down`."""

    down: Tensor  # [r, in]
    up: Tensor  # [out, r]
    scaling: float

    def added_to(self, weight: Tensor) -> Tensor:
        """`weight` [out, in] with it, in its dtype and on its device."""
        device = weight.device
        product = self.up.to(device, torch.float32) @ self.down.to(device, torch.float32)
        return product.mul_(self.scaling).add_(weight).to(weight.dtype)


class AdaptedTake:
    """Takes through `take`, and adds an adapter's part to each matrix that has one."""

    def __init__(
        self, take: Take, adapter: Mapping[str, Delta], dtype: torch.dtype, notes: list[str]
    ) -> None:
        """`adapter` is what `read_adapter` gave; `dtype` is of matrices that had to be unpacked."""
        self._take = take
        self._adapter = adapter
        self._dtype = dtype
        self._notes = notes
        notes.append(ACCEPTANCE_NOTE)

    def __call__(self, name: str, shape: tuple[int, ...], *, stored: bool = False) -> Tensor:
        """As `Take` says."""
        weight = self._take(name, shape, stored=stored)
        return self._adapter[name].added_to(weight) if name in self._adapter else weight

    def matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        """A matrix that the adapter changes is not packed."""
        weight = take_matrix(self._take, (name, shape))
        if name not in self._adapter:
            return weight
        if not isinstance(weight, Tensor):
            if _UNPACKED_NOTE not in self._notes:
                self._notes.append(_UNPACKED_NOTE)
            weight = weight.dequantized(torch.float32)
        else:
            weight = weight.to(self._dtype)
        return self._adapter[name].added_to(weight).to(self._dtype)

    def matrices(self, name: str, shape: tuple[int, int, int]) -> Iterator[Matrix]:
        """Experts are never adapted."""
        return take_matrices(self._take, name, shape)

    def table(self, name: str, shape: tuple[int, int]) -> Table:
        """Tables are never adapted."""
        return take_table(self._take, name, shape)


def read_adapter(files: Files, config: TargetConfig) -> dict[str, Delta]:
    """What the adapter adds to the target's tensors, by their names without prefix.

    Raises:
        LoadFailed: it is no plain LoRA, damaged, or made for another model; naming what is wrong.
    """
    for name in (CONFIG, WEIGHTS):
        if name not in files:
            raise _failed(f"it has no file {name}")
    lora = read_lora_config(_json(files[CONFIG]))
    found = _tensors(files[WEIGHTS])
    wanted = adaptable(config)
    unknown = sorted({module for module, _ in found} - wanted.keys())
    if unknown:
        names = ", ".join(unknown[:5]) + (" and others" if len(unknown) > 5 else "")
        raise _failed(f"the text model has no matrices {names}")
    return {
        f"{module}.weight": _delta(module, found, wanted[module], lora)
        for module in dict.fromkeys(module for module, _ in found)
    }


def adaptable(config: TargetConfig) -> dict[str, tuple[int, int]]:
    """Shape of every matrix of the text model that an adapter may change, by its module's name."""
    shapes: dict[str, tuple[int, int]] = {}
    if config.ple_dim:
        width = len(config.layers) * config.ple_dim
        shapes["per_layer_model_projection"] = (width, config.hidden)
    for index, layer in enumerate(config.layers):
        heads, inner = config.heads * layer.head_dim, layer.intermediate
        kv = (layer.kv_heads * layer.head_dim, config.hidden)
        of_layer = {
            "self_attn.q_proj": (heads, config.hidden),
            "self_attn.o_proj": (config.hidden, heads),
            # Where a layer reads another's keys these do nothing, but trainers may have saved some.
            "self_attn.k_proj": kv,
            **({} if layer.k_eq_v else {"self_attn.v_proj": kv}),
            **{f"mlp.{name}": (inner, config.hidden) for name in _MLP[:2]},
            f"mlp.{_MLP[2]}": (config.hidden, inner),
        }
        if config.ple_dim:
            of_layer["per_layer_input_gate"] = (config.ple_dim, config.hidden)
            of_layer["per_layer_projection"] = (config.hidden, config.ple_dim)
        if config.moe is not None:
            of_layer["router.proj"] = (config.moe.experts, config.hidden)
        shapes |= {f"layers.{index}.{name}": shape for name, shape in of_layer.items()}
    return shapes


def _delta(
    module: str, found: Mapping[tuple[str, str], Tensor], shape: tuple[int, int], lora: LoraConfig
) -> Delta:
    rank = lora.rank_of(module)
    expected = {"A": (rank, shape[1]), "B": (shape[0], rank)}
    for half, wanted in expected.items():
        if (module, half) not in found:
            raise _failed(f"{module}.lora_{half} is missing")
        given = tuple(found[module, half].shape)
        if given != wanted:
            raise _failed(f"{module}.lora_{half} has shape {given}, not {wanted}")
    return Delta(found[module, "A"], found[module, "B"], lora.scaling(module))


def _tensors(path: Path) -> dict[tuple[str, str], Tensor]:
    """Every tensor of the file by its module's name and A or B."""
    try:
        places = read_header(path)
        with path.open("rb") as file:
            found = [(place, _read(file.fileno(), place)) for place in places]
    except (BadHeader, OSError) as error:
        raise _failed(f"{WEIGHTS} could not be read: {error}") from error
    named = {}
    for place, tensor in found:
        match = _NAME.fullmatch(place.name)
        if match is None:
            raise _failed(f"it holds {place.name[:120]}, which is no matrix of a plain LoRA")
        if not tensor.is_floating_point():
            raise _failed(f"{place.name[:120]} holds {tensor.dtype}")
        named[match["module"], match["half"]] = tensor
    if not named:
        raise _failed("it holds nothing")
    return named


def _read(fd: int, place: Place) -> Tensor:
    data = bytearray(os.pread(fd, place.nbytes, place.begin))
    if len(data) != place.nbytes:
        raise BadHeader(f"it ends in the tensor {place.name[:80]}")
    if not data:
        return torch.empty(place.shape, dtype=place.dtype)
    return torch.frombuffer(data, dtype=place.dtype).view(place.shape)


def _json(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise _failed(f"{CONFIG} could not be read: {error}") from error
    if not isinstance(data, dict):
        raise _failed(f"{CONFIG} is no object")
    return data


def _failed(why: str) -> LoadFailed:
    return LoadFailed(f"The adapter cannot be applied: {why}.", fix=_FIX)
