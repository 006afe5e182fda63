"""Packed matrices as a tensor core takes them: every thread's weights beside each other.

A tile is 16 rows, a step 128 columns. Lane 4 g + q of a warp owns of rows g and 8 + g, in each of
the step's four blocks of 32, the 8 columns from 8 q on: those that `mma.sync.m16n8k16` wants of it,
for the order of columns within a block is free if activations follow it. In memory:

    codes [tiles, steps, pieces, 32 lanes, 4 words]   a piece is 16 bytes a lane, 512 together
        Q4_0, 2 pieces: word 2 b + h is block b of row h; pair i of it in fields i and 4 + i
        Q8_0, 4 pieces: words 4 b + 2 h and one more;     pair i in bytes i and 2 + i, two a word
    scale [tiles, steps, 8 g, 4 blocks, 2 rows]       float16

Rows of a gate and its up projection lie so that a thread's first row is gate's and its second up's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gemmarunner.quant.formats import Format, Packed
from gemmarunner.quant.planes import gather

TILE, STEP, BLOCK = 16, 128, 32
_BITS = {Format.Q4_0: 4, Format.Q8_0: 8}
_CHUNK = 2**24  # weights laid out at once


@dataclass(frozen=True, slots=True)
class Tiled:
    """A matrix [N, K] laid out as above."""

    format: Format
    shape: tuple[int, int]
    codes: Tensor
    scale: Tensor
    gated: bool

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.codes.nbytes + self.scale.nbytes

    def matmul(self, x: Tensor) -> Tensor:
        """See `tiled_linear.matmul`; with the next three a `kernels.linear.PackedWeight`."""
        from gemmarunner.quant import tiled_linear

        return tiled_linear.matmul(x, self)

    def gate_up(self, x: Tensor) -> Tensor:
        """See `tiled_linear.gate_up`."""
        from gemmarunner.quant import tiled_linear

        return tiled_linear.gate_up(x, self)

    def ple_gate(self, x: Tensor, ple: Tensor) -> Tensor:
        """See `tiled_linear.ple_gate`."""
        from gemmarunner.quant import tiled_linear

        return tiled_linear.ple_gate(x, self, ple)

    def head(self, x: Tensor, softcap: float | None) -> Tensor:
        """See `tiled_linear.head`."""
        from gemmarunner.quant import tiled_linear

        return tiled_linear.head(x, self, softcap)

    def dequantized(self, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """The weights [N, K] in `dtype`; in float32 bit for bit as GGML computes them."""
        from gemmarunner.quant import tiled_linear

        return tiled_linear.dequantized(self, dtype)


def can_tile(packed: Packed) -> bool:
    """Whether there is a layout for its format."""
    return packed.format in _BITS


def tiled(packed: Packed, *, gated: bool = False) -> Tiled:
    """`packed` laid out anew; gated: gate's rows above up's, for `gate_up` alone."""
    rows, columns = packed.shape
    tiles, steps = -(-rows // TILE), -(-columns // STEP)
    pieces = _BITS[packed.format] // 2
    codes = torch.empty((tiles, steps, pieces, 32, 4), dtype=torch.int32, device=packed.device)
    scale = torch.empty((tiles, steps, 8, 4, 2), dtype=torch.float16, device=packed.device)
    each = max(1, _CHUNK // (TILE * columns))
    for begin in range(0, tiles, each):
        part = packed.rows(_rows_of(range(begin, min(begin + each, tiles)), rows, gated, codes))
        codes[begin : begin + each], scale[begin : begin + each] = _laid_out(part, gated)
    return Tiled(packed.format, packed.shape, codes, scale, gated)


def _rows_of(tiles: range, rows: int, gated: bool, like: Tensor) -> Tensor:
    """The matrix's rows in `tiles` of it, in its own order: [n] int64."""
    if not gated:
        return torch.arange(tiles.start * TILE, min(tiles.stop * TILE, rows), device=like.device)
    inner = rows // 2
    gate = torch.arange(
        tiles.start * TILE // 2, min(tiles.stop * TILE // 2, inner), device=like.device
    )
    return torch.cat((gate, inner + gate))


def _laid_out(packed: Packed, gated: bool) -> tuple[Tensor, Tensor]:
    """Codes and scales of a few tiles."""
    bits, columns = _BITS[packed.format], packed.shape[1]
    codes = gather(packed.planes.codes, bits, BLOCK)[:, :columns]
    scale = packed.planes.scale.transpose(0, 1).flatten(1)[:, : -(-columns // BLOCK)]
    codes, scale = _by_tile(codes, STEP, gated), _by_tile(scale, STEP // BLOCK, gated)
    tiles, _, _, steps, _ = codes.shape
    words = _words(codes.view(tiles, 2, 8, steps, 4, 4, 4, 2), bits)
    # from [tiles, half, g, steps, block, q, word of a row's block]
    words = words.permute(0, 3, 4, 2, 5, 1, 6)
    if bits == 4:  # a piece is two blocks
        words = torch.unflatten(words, 2, (2, 2)).permute(0, 1, 2, 4, 5, 3, 6, 7)
    scale = scale.permute(0, 3, 2, 4, 1).reshape(tiles, steps, 8, 4, 2)
    return words.reshape(tiles, steps, bits // 2, 32, 4), scale


def _by_tile(values: Tensor, width: int, gated: bool) -> Tensor:
    """Values [N, columns] as [tiles, 2, 8, steps, width], zeros filling up."""
    rows, columns = values.shape
    down = -rows % (TILE // 2 if gated else TILE)
    if gated:
        values = values.view(2, rows // 2, columns)
        down = -(rows // 2) % (TILE // 2)
    values = F.pad(values, (0, -columns % width, 0, down))
    steps = values.shape[-1] // width
    if gated:
        return values.view(2, -1, 8, steps, width).transpose(0, 1)
    return values.view(-1, 2, 8, steps, width)


def _words(codes: Tensor, bits: int) -> Tensor:
    """Codes [.., 4 pairs, 2] uint8 as int32 words [.., 1 or 2]."""
    codes = codes.to(torch.int32)
    if bits == 4:
        fields = [codes[..., i, 0] << 4 * i | codes[..., i, 1] << 4 * (4 + i) for i in range(4)]
        return (fields[0] | fields[1] | fields[2] | fields[3])[..., None]
    first = codes[..., 0] | codes[..., 1] << 16  # [.., 4 pairs]
    return torch.stack([first[..., i] | first[..., i + 1] << 8 for i in (0, 2)], -1)


def unpacked_slow(weight: Tiled) -> Tensor:
    """The weights [N, K] float32 in plain torch."""
    tiles, steps, pieces = weight.codes.shape[:3]
    if pieces == 2:  # [tiles, steps, piece, g, q, block of the piece, half]
        words = weight.codes.view(tiles, steps, 2, 8, 4, 2, 2).permute(0, 6, 3, 1, 2, 5, 4)
        codes = torch.stack([words >> 4 * i & 0xF000F for i in range(4)], -1)
        codes = torch.stack([codes & 15, codes >> 16], -1) - 8
    else:  # [tiles, steps, block, g, q, half, word]
        words = weight.codes.view(tiles, steps, 4, 8, 4, 2, 2).permute(0, 5, 3, 1, 2, 4, 6)
        codes = torch.stack([words << 24 - shift >> 24 for shift in (0, 16, 8, 24)], -1)
    scale = weight.scale.permute(0, 4, 2, 1, 3).reshape(tiles, 2, 8, steps * 4, 1).float()
    whole = (codes.reshape(tiles, 2, 8, steps * 4, BLOCK) * scale).flatten(3)
    rows, columns = weight.shape
    if weight.gated:
        halves = whole.transpose(0, 1).reshape(2, tiles * 8, -1)[:, : rows // 2]
        return halves.reshape(rows, -1)[:, :columns]
    return whole.reshape(tiles * TILE, -1)[:rows, :columns]
