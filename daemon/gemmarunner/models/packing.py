"""Which of a checkpoint's matrices are packed when it is loaded quantized, and how.

int8 packs as Q8_0, int4 as Q4_0 with searched scales. The head is Q8_0 in both: it chooses among
262,144 tokens, and is read once a step. The embedding table stays as it is stored, because rows are
looked up in it, and norms and routers are small. Experts come one by one, where kernels read them
packed: on a GPU, and by the CPU's native library.
"""

from collections.abc import Callable

from torch import Tensor

from gemmarunner.models.weights import Matrix
from gemmarunner.quant.formats import INT4, INT8, Format, quantize

Pack = Callable[[str, Matrix], Matrix]  # (what it is, matrix [N, K]) -> how it is kept

_FORMATS = {"int8": INT8, "int4": INT4}
_BLOCK = 32
# Below this a matrix is read in no time, and its precision costs nothing.
_SMALL_ELEMENTS = 2**16
# Per-layer embeddings' gates: a hundredth of the weights, and operators of their own read them.
_KEPT = frozenset(("ple_gate", "ple_widen", "ple_context"))

_ALREADY = (
    "The file's weights are quantized already and kept as they are: --quantize changes only those "
    "it holds in 16 bits."
)


def packer(wanted: str | None, notes: list[str] | None = None) -> Pack:
    """How matrices are kept under `--quantize wanted`; None: as they are.

    What a file has packed stays so, and `notes` gets a line that says it.

    Raises:
        ValueError: there is no such quantization.
    """
    if wanted is None:
        return lambda name, matrix: matrix.contiguous() if isinstance(matrix, Tensor) else matrix
    if wanted not in _FORMATS:
        raise ValueError(f"weights can be packed as {' or '.join(_FORMATS)}, not {wanted!r}")
    chosen = _FORMATS[wanted]

    def pack(name: str, matrix: Matrix) -> Matrix:
        if not isinstance(matrix, Tensor):  # its file packed it, and measured what that costs
            if notes is not None and _ALREADY not in notes:
                notes.append(_ALREADY)
            return matrix
        if name in _KEPT or matrix.numel() < _SMALL_ELEMENTS or matrix.shape[1] % _BLOCK:
            return matrix.contiguous()
        return quantize(matrix, Format.Q8_0 if name == "head" else chosen)

    return pack
