"""A model's layers in the native library's words, where all of their matrices are in its layout."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gemmarunner.engine.kvcache import KVCache
from gemmarunner.models.layers import Layer, MoEBranch
from gemmarunner.models.norm import ComposedNorm, RMSNorm
from gemmarunner.models.turns import Turn
from gemmarunner.native.layers import ExpertParts, LayerParts, Layers, Norm, Places
from gemmarunner.native.linear import BLOCK, Native

_LANES = 8  # floats that its attention takes at once


class NotNative(Exception):
    """A part of a layer is kept in a way that the library does not read."""


def native_layers(
    layers: Sequence[Layer], kv_heads: Sequence[int], shapes: Sequence[int]
) -> Layers | None:
    """`layers` for the library, or None where one of them is not for it.

    `kv_heads` of the cache that each reads, `shapes` the place of its geometry in a call's places.
    """
    try:
        parts = [_parts(*each) for each in zip(layers, kv_heads, shapes, strict=True)]
    except NotNative:
        return None
    return Layers(parts, int(parts[0].input_norm.weight.shape[-1]))


def run_native(
    native: Layers, begin: int, end: int, x: Tensor, ple: Tensor | None, turns: Sequence[Turn],
    donors: Sequence[int],
) -> Tensor:  # fmt: skip
    """Rows [rows, hidden] through layers begin..end-1; `donors`: whose K/V each layer reads."""
    caches = [part.cache for part in turns[0].parts]
    counts = [part.span.rows for part in turns[0].parts]
    sequences = [index for index, count in enumerate(counts) for _ in range(count)]
    stores = [[cache.store(donor) for cache in caches] for donor in donors[begin:end]]
    return native(begin, end, x.contiguous(), sequences, [_places(t) for t in turns], stores, ple)


def drafter_place(cos: Tensor, sin: Tensor, cache: KVCache, donor: int) -> Places:
    """A drafter's row, which sees what is committed of its donor and writes nothing."""
    first, count = cache.seen(donor)
    return Places(cos, sin, (0,), (first,), (first + count,))


def _places(turn: Turn) -> Places:
    slots: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    for _, span in turn.parts:
        slots += range(span.slot, span.slot + span.rows)
        begins += (span.first_seen(row) for row in range(span.rows))
        ends += (span.seen_end(row) for row in range(span.rows))
    return Places(turn.cos, turn.sin, slots, begins, ends)


def _parts(layer: Layer, kv_heads: int, shape: int) -> LayerParts:
    project, output = _matrix(layer.project.multiply), _matrix(layer.output)
    gate_up, down = _matrix(layer.mlp.gate_up), _matrix(layer.mlp.down)
    width = layer.project.shape[2]
    if width % _LANES or (output.is_quantized and width % BLOCK):
        raise NotNative
    ple = layer.ple
    return LayerParts(
        project=project,
        output=output,
        gate_up=gate_up,
        down=down,
        ple=(_matrix(ple.gate), _matrix(ple.widen), _norm(ple.norm)) if ple else None,
        input_norm=_norm(layer.input_norm),
        head_norm=_norm(layer.project.norm),
        attention_norm=_norm(layer.post_attention_norm),
        mlp_norm=_norm(layer.pre_mlp_norm),
        post_mlp_norm=_norm(layer.post_mlp_norm),
        scalar=layer.scalar,
        heads=layer.heads,
        kv_heads=kv_heads,
        width=width,
        k_eq_v=layer.project.k_eq_v,
        shape=shape,
        experts=_experts(layer.moe) if layer.moe else None,
    )


def _experts(branch: MoEBranch) -> ExpertParts:
    experts = branch.experts
    return ExpertParts(
        router=_matrix(experts.router),
        gate_up=_alike(experts.gate_up),
        down=_alike(experts.down),
        router_norm=_norm(experts.router_norm),
        input_norm=_norm(branch.input_norm),
        dense_norm=_norm(branch.dense_norm),
        routed_norm=_norm(branch.routed_norm),
        scale=experts.expert_scale,
        best=experts.top_k,
    )


def _alike(linears: Sequence[object]) -> list[Native]:
    """Files may keep some layers' experts in another format, but one layer's in one."""
    found = [_matrix(linear) for linear in linears]
    if len({one.layout for one in found}) > 1:
        raise NotNative
    return found


def _matrix(linear: object) -> Native:
    if not isinstance(linear, Native):
        raise NotNative
    return linear


def _norm(norm: RMSNorm) -> Norm:
    if not isinstance(norm, ComposedNorm) or norm.weight.dtype is not torch.float32:
        raise NotNative
    return Norm(norm.weight, float(norm.floor))
