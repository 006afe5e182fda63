"""Layers compiled by TorchScript: the same operators for few rows, without Python between them.

A small model's round is mostly dispatch, and another thread that wants the interpreter's lock gets
in between any two operators. A compiled layer is one call that holds no lock. It runs the very
operators of `layers.py`, in their order, so that its results are equal bit for bit. What it cannot
express (experts, other devices, matrices of other kinds) runs as it is written there.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gemmarunner.models.layers import Layer
from gemmarunner.models.linear import Half, Linear, Reordered, Tiny, Transposed
from gemmarunner.models.norm import ComposedNorm, RMSNorm


class ScriptedLayer(Protocol):
    """A layer over few rows of one or several sequences."""

    def __call__(
        self,
        x: Tensor,  # [rows, hidden], also rows that only fill up; not changed
        cos: Tensor,  # [rows, 1, head_dim]
        sin: Tensor,
        own: list[Tensor],  # the cache of each sequence, of layers that own K/V
        writes: list[list[int]],  # its rows: first, number, slot of the first
        seen: list[Tensor],  # the cache of each piece
        pieces: list[list[int]],  # first row, one past the last, slot of the first key, keys
        masks: list[Tensor],  # of each piece [rows, 1, 1, keys]; or none at all
        ple: Tensor | None,  # [rows, ple_dim]
    ) -> Tensor:
        """[rows, hidden]."""
        ...


def script_layer(layer: Layer, kv_heads: int) -> ScriptedLayer | None:
    """`layer` compiled, or None where that is impossible; `kv_heads` of the cache it reads."""
    try:
        module = _Layer(layer, kv_heads).eval()
    except _NotScriptable:
        return None
    with _quietly():
        try:
            return cast(ScriptedLayer, torch.jit.script(module))
        except (RuntimeError, OSError):  # no compiler here for this Python, or no source to compile
            return None


def script_layers(layers: Sequence[Layer], kv_heads: Sequence[int]) -> list[ScriptedLayer]:
    """All of them, or none if one is impossible."""
    scripted: list[ScriptedLayer] = []
    for layer, count in zip(layers, kv_heads, strict=True):
        made = script_layer(layer, count)
        if made is None:
            return []
        scripted.append(made)
    return scripted


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """TorchScript warns that it will not grow any more; what it has is all that is wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _NotScriptable(Exception):
    pass


class _Norm(nn.Module):
    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        if not isinstance(norm, ComposedNorm):
            raise _NotScriptable
        self.weight = norm.weight
        self.floor = norm.floor

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, 2.0, [-1], True).hypot_(self.floor)
        return (x * self.weight).div_(length)


class _AddNorm(_Norm):
    def forward(self, residual: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        length = torch.linalg.vector_norm(x, 2.0, [-1], True).hypot_(self.floor)
        return torch.addcdiv(residual, x * self.weight, length)


class _Half(nn.Module):
    def __init__(self, linear: Half) -> None:
        super().__init__()
        self.packed = linear.packed

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.quantized.linear_dynamic_fp16(rows, self.packed)
        return out


class _Reordered(nn.Module):
    def __init__(self, linear: Reordered) -> None:
        super().__init__()
        self.packed = linear.packed

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.packed, None, "none", [], "")
        return out


class _Transposed(nn.Module):
    def __init__(self, linear: Transposed) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, rows: Tensor) -> Tensor:
        return torch.mm(rows, self.weight)


class _Tiny(nn.Module):
    def __init__(self, linear: Tiny) -> None:
        super().__init__()
        self.weight = linear.weight

    def forward(self, rows: Tensor) -> Tensor:
        each = self.weight.expand(rows.shape[0], -1, -1)
        return torch.bmm(rows.unsqueeze(1), each).squeeze(1)


def _linear(linear: Linear) -> nn.Module:
    for kind, module in (
        (Half, _Half), (Reordered, _Reordered), (Transposed, _Transposed), (Tiny, _Tiny),
    ):  # fmt: skip
        if isinstance(linear, kind):
            return module(linear)  # type: ignore[arg-type]
    raise _NotScriptable


class _PerLayerInput(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        assert layer.ple is not None
        self.gate = _linear(layer.ple.gate)
        self.widen = _linear(layer.ple.widen)
        self.add_norm = _AddNorm(layer.ple.norm)

    def forward(self, x: Tensor, ple: Tensor | None) -> Tensor:
        assert ple is not None
        gated = F.gelu(self.gate(x), approximate="tanh").mul_(ple)
        out: Tensor = self.add_norm(x, self.widen(gated))
        return out


class _NoPerLayerInput(nn.Module):
    def forward(self, x: Tensor, ple: Tensor | None) -> Tensor:
        return x


class _Layer(nn.Module):
    def __init__(self, layer: Layer, kv_heads: int) -> None:
        super().__init__()
        if layer.moe is not None:
            raise _NotScriptable
        project = layer.project
        self.heads, self.kv_heads = layer.heads, kv_heads
        self.all_heads, self.width = project.shape[1:]
        self.rotated, self.shift, self.k_eq_v = project.rotated, project.half, project.k_eq_v
        self.scalar = layer.scalar
        self.input_norm = _Norm(layer.input_norm)
        self.multiply = _linear(project.multiply)
        self.head_norm = _Norm(project.norm)
        self.output = _linear(layer.output)
        self.attention_norm = _AddNorm(layer.post_attention_norm)
        self.mlp_norm = _Norm(layer.pre_mlp_norm)
        self.gate_up = _linear(layer.mlp.gate_up)
        self.down = _linear(layer.mlp.down)
        self.post_mlp_norm = _AddNorm(layer.post_mlp_norm)
        self.ple = _PerLayerInput(layer) if layer.ple is not None else _NoPerLayerInput()

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        own: list[Tensor],
        writes: list[list[int]],
        seen: list[Tensor],
        pieces: list[list[int]],
        masks: list[Tensor],
        ple: Tensor | None,
    ) -> Tensor:
        heads = self.project(self.input_norm(x), cos, sin)
        for i, store in enumerate(own):
            first, count, slot = writes[i]
            rows = heads[first : first + count, self.heads :]
            store.narrow(1, slot, count).copy_(rows.transpose(0, 1))
        attended = self.attend(heads, seen, pieces, masks)
        x = self.attention_norm(x, self.output(attended))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        out = self.down(F.gelu(gate, approximate="tanh").mul_(up))
        x = self.ple(self.post_mlp_norm(x, out), ple)
        return x.mul_(self.scalar)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        raw = self.multiply(x).view(-1, self.all_heads, self.width)
        if self.k_eq_v:
            raw = torch.cat((raw, raw[:, self.heads :]), 1)
        heads: Tensor = self.head_norm(raw)
        turning = heads[:, : self.rotated]
        turned = turning.roll(self.shift, -1).mul_(sin)
        turning.mul_(cos).add_(turned)
        return heads

    def attend(
        self, heads: Tensor, seen: list[Tensor], pieces: list[list[int]], masks: list[Tensor]
    ) -> Tensor:
        parts: list[Tensor] = []
        end = 0
        for i, store in enumerate(seen):
            begin, end, first, keys = pieces[i]
            rows = end - begin
            queries = heads[begin:end, : self.heads]
            folded = queries.reshape(rows, self.kv_heads, self.heads // self.kv_heads, self.width)
            both = store.narrow(1, first, keys).expand(rows, -1, -1, -1)
            keys_, values = both[:, : self.kv_heads], both[:, self.kv_heads :]
            mask = masks[i] if len(masks) > 0 else None
            out = F.scaled_dot_product_attention(folded, keys_, values, mask, scale=1.0)
            parts.append(out.reshape(rows, self.heads * self.width))
        if end < heads.shape[0]:
            parts.append(parts[-1][-1:].expand(heads.shape[0] - end, -1))
        return parts[0] if len(parts) == 1 else torch.cat(parts)
