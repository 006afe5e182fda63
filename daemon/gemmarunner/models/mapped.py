"""Files mapped into memory: their bytes as views, read from the disk when they are looked at."""

from pathlib import Path

import torch
from torch import Tensor


class MappedFiles:
    """Maps each file once, for as long as a view of it lives."""

    def __init__(self) -> None:
        self._whole: dict[Path, Tensor] = {}  # [bytes of the file] uint8

    def view(self, path: Path, begin: int, nbytes: int) -> Tensor:
        """The file's bytes [nbytes] uint8 from `begin` on; not to be written to.

        Raises:
            OSError, RuntimeError: it cannot be mapped, or it ends before.
        """
        if path not in self._whole:
            size = path.stat().st_size
            if size < begin + nbytes:  # cut off since its header was read
                raise OSError(f"it ends at byte {size}")
            self._whole[path] = torch.from_file(
                str(path), shared=False, size=size, dtype=torch.uint8
            )
        return self._whole[path][begin : begin + nbytes]
