"""One decoder layer on fused operators: the residual stream in float32, everything else in T.

Computes what `models.layers.Layer` computes. T is the model's dtype, R the rows of a step.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.kernels.experts import experts, route
from gemmarunner.kernels.heads import rotate_queries, split_heads, write_heads
from gemmarunner.kernels.linear import Weight, gate_up, matmul, ple_gate
from gemmarunner.kernels.norm import Normed, add_experts_norm, add_norm
from gemmarunner.kernels.rows import Rows
from gemmarunner.models.config import LayerConfig, MoEConfig
from gemmarunner.models.rope import frequencies
from gemmarunner.models.weights import Matrix, Take, take_matrix, under
from gemmarunner.quant.formats import Packed
from gemmarunner.quant.tiled import can_tile, tiled
from gemmarunner.quant.tiled_experts import TiledExperts, tiled_experts

Pack = Callable[[str, Matrix], Weight]  # (what it is, matrix [out, in]) -> how it is kept


def as_it_is(name: str, matrix: Matrix) -> Weight:
    """The matrix itself, rows side by side."""
    return matrix.contiguous() if isinstance(matrix, Tensor) else matrix


def laid_out(weight: Weight, *, gated: bool = False) -> Weight:
    """A packed matrix as its kernel wants it, where it has one for few rows; gated: see `tiled`."""
    if isinstance(weight, Packed) and can_tile(weight) and weight.device.type == "cuda":
        return tiled(weight, gated=gated)
    return weight


class LayerPlan(NamedTuple):
    """What a layer is built from."""

    layer: LayerConfig
    hidden: int
    heads: int
    eps: float
    dtype: torch.dtype
    owns_kv: bool
    ple_dim: int = 0
    moe: MoEConfig | None = None


class Layer:
    """A layer's weights; the caller attends between `queries` and `finish`."""

    def __init__(self, plan: LayerPlan, take: Take, pack: Pack) -> None:
        layer, hidden = plan.layer, plan.hidden
        width, inner = plan.heads * layer.head_dim, layer.intermediate

        def norm(name: str) -> Tensor:
            return take(f"{name}.weight", (hidden,)).float()

        self._plan = plan
        self.input_norm = norm("input_layernorm")
        self._project = laid_out(pack("qkv", take_matrix(take, *_projections(plan))))
        self._q_norm = take("self_attn.q_norm.weight", (layer.head_dim,)).float()
        self._k_norm = self._q_norm
        if plan.owns_kv:
            self._k_norm = take("self_attn.k_norm.weight", (layer.head_dim,)).float()
        self._frequencies = frequencies(layer.rope, layer.head_dim, self._q_norm.device)
        output = take_matrix(take, ("self_attn.o_proj.weight", (hidden, width)))
        self._output = laid_out(pack("output", output))
        self._post_attention = norm("post_attention_layernorm")
        self._pre_mlp = norm("pre_feedforward_layernorm")
        halves = [(f"mlp.{name}_proj.weight", (inner, hidden)) for name in ("gate", "up")]
        self._gate_up = laid_out(pack("gate_up", take_matrix(take, *halves)), gated=True)
        down = take_matrix(take, ("mlp.down_proj.weight", (hidden, inner)))
        self._down = laid_out(pack("down", down))
        self._post_mlp = norm("post_feedforward_layernorm")
        self._scalar: float = take("layer_scalar", (1,)).float().item()
        self._moe = _Routed(plan.moe, hidden, take, pack) if plan.moe else None
        self._ple = _PerLayerInput(hidden, plan.ple_dim, take, pack) if plan.ple_dim else None

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but matrices that are not packed."""
        matrices = (self._project, self._output, self._gate_up, self._down)
        return self._moe is None and all(isinstance(matrix, Tensor) for matrix in matrices)

    def queries(self, normed: Tensor, rows: Rows, cache: Tensor | None) -> Tensor:
        """Rotated queries [R, heads, head_dim]; keys and values go into `cache`, if it is owned."""
        plan, parts = self._plan, matmul(normed, self._project)
        if cache is not None:
            return write_heads(
                parts,
                self._q_norm,
                self._k_norm,
                self._frequencies,
                cache,
                rows,
                eps=plan.eps,
                heads=plan.heads,
                kv_heads=plan.layer.kv_heads,
                head_dim=plan.layer.head_dim,
                k_eq_v=plan.layer.k_eq_v,
                dtype=plan.dtype,
            )
        return rotate_queries(
            parts,
            self._q_norm,
            self._frequencies,
            rows,
            eps=plan.eps,
            heads=plan.heads,
            head_dim=plan.layer.head_dim,
            dtype=plan.dtype,
        )

    def heads(self, normed: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Queries [R, heads, head_dim], new keys and values [2, K/V heads, R, head_dim]."""
        plan = self._plan
        return split_heads(
            matmul(normed, self._project),
            self._q_norm,
            self._k_norm,
            self._frequencies,
            rows,
            eps=plan.eps,
            heads=plan.heads,
            kv_heads=plan.layer.kv_heads,
            head_dim=plan.layer.head_dim,
            k_eq_v=plan.layer.k_eq_v,
            dtype=plan.dtype,
        )

    def finish(self, x: Tensor, attended: Tensor, ple: Tensor | None, after: Tensor) -> Normed:
        """The residual stream after this layer, and its norm by the next one's weight `after`.

        `x` [R, hidden] f32, `attended` [R, heads * head_dim] T, `ple` [R, ple_dim] T.
        """
        eps, dtype = self._plan.eps, self._plan.dtype
        parts = matmul(attended, self._output)
        if self._moe is not None:
            return self._finish_routed(self._moe, x, parts, after)
        x, (h,) = add_norm(x, parts, self._post_attention, eps, 1.0, (self._pre_mlp,), dtype)
        parts = matmul(gate_up(h, self._gate_up), self._down)
        if self._ple is None:
            return add_norm(x, parts, self._post_mlp, eps, self._scalar, (after,), dtype)
        assert ple is not None
        x, (raw,) = add_norm(x, parts, self._post_mlp, eps, 1.0, (None,), dtype)
        gated = ple_gate(raw, self._ple.gate, ple)
        parts = matmul(gated, self._ple.widen)
        return add_norm(x, parts, self._ple.norm, eps, self._scalar, (after,), dtype)

    def _finish_routed(self, moe: "_Routed", x: Tensor, parts: Tensor, after: Tensor) -> Normed:
        eps, dtype = self._plan.eps, self._plan.dtype
        nexts = (self._pre_mlp, moe.router_norm, moe.input_norm)
        x, (h, routed_by, own) = add_norm(x, parts, self._post_attention, eps, 1.0, nexts, dtype)
        dense = matmul(gate_up(h, self._gate_up), self._down)
        shares, chosen = route(routed_by, moe.router, moe.expert_scale, moe.top_k)
        return add_experts_norm(
            x,
            dense,
            experts(own, moe.gate_up, moe.down, shares, chosen),
            moe.dense_norm,
            moe.routed_norm,
            self._post_mlp,
            eps,
            self._scalar,
            (after,),
            dtype,
        )


class _Routed:
    """Weights of the routed branch."""

    def __init__(self, moe: MoEConfig, hidden: int, take: Take, pack: Pack) -> None:
        count, width = moe.experts, moe.intermediate
        self.top_k = moe.top_k
        self.dense_norm = take("post_feedforward_layernorm_1.weight", (hidden,)).float()
        self.routed_norm = take("post_feedforward_layernorm_2.weight", (hidden,)).float()
        self.input_norm = take("pre_feedforward_layernorm_2.weight", (hidden,)).float()
        self.router_norm = take("router.scale", (hidden,)).float() * hidden**-0.5
        self.router = take("router.proj.weight", (count, hidden)).contiguous()
        self.expert_scale = take("router.per_expert_scale", (count,)).float()
        gate_up = take("experts.gate_up_proj", (count, 2 * width, hidden))
        self.gate_up = _packed_experts(gate_up, pack, gated=True)
        self.down = _packed_experts(take("experts.down_proj", (count, hidden, width)), pack)


def _packed_experts(stack: Tensor, pack: Pack, *, gated: bool = False) -> Tensor | TiledExperts:
    """Experts' matrices `stack` [E, N, K] as `pack` keeps them, if a kernel reads that."""
    kept = [pack("experts", matrix) for matrix in stack] if stack.is_cuda else []
    packed = [one for one in kept if isinstance(one, Packed) and can_tile(one)]
    if not packed or len(packed) < len(stack):
        return stack.contiguous()
    return tiled_experts(packed, gated=gated)


class _PerLayerInput:
    """Weights that bring the token's per-layer embedding into the residual stream."""

    def __init__(self, hidden: int, ple_dim: int, take: Take, pack: Pack) -> None:
        gate = take_matrix(take, ("per_layer_input_gate.weight", (ple_dim, hidden)))
        self.gate = laid_out(pack("ple_gate", gate))
        widen = take_matrix(take, ("per_layer_projection.weight", (hidden, ple_dim)))
        self.widen = laid_out(pack("ple_widen", widen))
        self.norm = take("post_per_layer_input_norm.weight", (hidden,)).float()


def layer_take(take: Take, index: int) -> Take:
    """`take` for the names of layer `index`."""
    return under(take, f"layers.{index}.")


def _projections(plan: LayerPlan) -> list[tuple[str, tuple[int, int]]]:
    """The matrices, with their shapes, whose products are the layer's queries, keys and values."""
    width, kv_width = (count * plan.layer.head_dim for count in (plan.heads, plan.layer.kv_heads))
    parts = [("self_attn.q_proj.weight", (width, plan.hidden))]
    if plan.owns_kv:
        names = ("k",) if plan.layer.k_eq_v else ("k", "v")
        shape = (kv_width, plan.hidden)
        parts += [(f"self_attn.{name}_proj.weight", shape) for name in names]
    return parts
