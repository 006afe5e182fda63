"""From files on disk to a target or drafter ready to run."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gemmarunner.models.drafter import Drafter
from gemmarunner.models.linear import Linear, MakeLinear, make_linear, make_row_linear
from gemmarunner.models.opening import open_drafter, open_target
from gemmarunner.models.packing import packer
from gemmarunner.models.split import Split
from gemmarunner.models.target import Target
from gemmarunner.models.weights import Matrix, Progress
from gemmarunner.native.linear import own_memory


def load_target(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    quantize: str | None = None,
    *,
    adapter: Mapping[str, Path] | None = None,
    notes: list[str] | None = None,
    split: Split = (),
) -> Target:
    """A target of the files, by their names in the repository; `dtype` None: as stored.

    `quantize` (int8, int4) packs its big matrices, see `packing.py`; `split` spreads its layers
    over devices, of which `device` is the last, see `split.py`.

    Raises:
        ConfigError: config.json describes no model this decoder can run.
        LoadFailed: a file or tensor is missing, damaged or of the wrong shape.
    """
    linear, head = (make_linear, make_linear) if quantize is None else _packing(quantize, notes)
    with (
        own_memory(),
        open_target(files, device, dtype, progress, adapter=adapter, notes=notes) as opened,
    ):
        return Target(*opened, linear=linear, head=head, split=split)


def load_drafter(
    files: Mapping[str, Path],
    device: str,
    dtype: torch.dtype | None = None,
    progress: Progress | None = None,
    quantize: str | None = None,
    *,
    notes: list[str] | None = None,
) -> Drafter:
    """A drafter of the files, not yet bound to a target; arguments and errors of `load_target`."""
    linear, head = (make_row_linear, make_linear) if quantize is None else _draft_packing(quantize)
    with own_memory(), open_drafter(files, device, dtype, progress, notes=notes) as opened:
        return Drafter(*opened, linear=linear, head=head)


def _packing(quantize: str, notes: list[str] | None) -> tuple[MakeLinear, MakeLinear]:
    """How the layers' matrices and the head are kept.

    What `quantize` made 8 bits may also be multiplied in 8 bits on a CPU (one scale a row,
    activations rounded): the user asked for that precision, which a file's own Q8_0 does not say.
    """
    pack = packer(quantize, notes)

    def kept(name: str) -> MakeLinear:
        in_bytes = quantize == "int8" or name == "head"

        def linear(weight: Matrix) -> Linear:
            return make_linear(
                pack(name, weight), requantize=in_bytes and isinstance(weight, Tensor)
            )

        return linear

    return kept(""), kept("head")


def _draft_packing(quantize: str) -> tuple[MakeLinear, MakeLinear]:
    """As `_packing`, for a drafter: what multiplying in 8 bits costs is drafts, never answers."""
    pack = packer(quantize)

    def linear(weight: Matrix) -> Linear:
        kept = pack("", weight)
        if isinstance(kept, Tensor):
            return make_row_linear(kept)
        return make_linear(kept, requantize=True)

    return linear, lambda weight: make_linear(pack("head", weight), requantize=True)
