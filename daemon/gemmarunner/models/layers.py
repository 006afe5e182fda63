"""One decoder layer: attention, MLP, experts and per-layer embedding around one residual."""

import torch.nn.functional as F
from torch import Tensor

from gemmarunner.models.attention import Projection
from gemmarunner.models.config import LayerConfig, MoEConfig
from gemmarunner.models.linear import MakeLinear, make_linear
from gemmarunner.models.mlp import Experts, GatedMLP
from gemmarunner.models.norm import RMSNorm, make_norm
from gemmarunner.models.weights import Take, take_matrix, under


class Layer:
    """A layer's weights; the caller carries keys and values between the two halves."""

    def __init__(
        self,
        layer: LayerConfig,
        *,
        hidden: int,
        heads: int,
        eps: float,
        take: Take,
        owns_kv: bool,
        linear: MakeLinear = make_linear,
        ple_dim: int = 0,
        moe: MoEConfig | None = None,
    ) -> None:
        def norm(name: str) -> RMSNorm:
            return make_norm(take(f"{name}.weight", (hidden,)), eps)

        self.heads = heads
        self.input_norm = norm("input_layernorm")
        self.project = Projection(layer, hidden, heads, eps, take, owns_kv=owns_kv, linear=linear)
        self.output = linear(
            take_matrix(take, ("self_attn.o_proj.weight", (hidden, heads * layer.head_dim)))
        )
        self.post_attention_norm = norm("post_attention_layernorm")
        self.pre_mlp_norm = norm("pre_feedforward_layernorm")
        self.mlp = GatedMLP(hidden, layer.intermediate, under(take, "mlp."), linear)
        self.post_mlp_norm = norm("post_feedforward_layernorm")
        self.moe = MoEBranch(moe, hidden, eps, take, linear) if moe else None
        self.ple = _PerLayerInput(hidden, ple_dim, eps, take) if ple_dim else None
        self.scalar = take("layer_scalar", (1,)).item()

    def finish(self, x: Tensor, attended: Tensor, ple: Tensor | None = None) -> Tensor:
        """The layer's output [rows, hidden] from its input x and its heads' attention outputs.

        `ple` is the rows' per-layer embedding for this layer: [rows, ple_dim].
        """
        x = self.post_attention_norm.add(x, self.output(attended))
        out = self.mlp(self.pre_mlp_norm(x))
        if self.moe is not None:
            out = self.moe(out, x)
        x = self.post_mlp_norm.add(x, out)
        if self.ple is not None and ple is not None:
            x = self.ple(x, ple)
        return x.mul_(self.scalar)


class MoEBranch:
    """Adds the routed experts to the dense branch, each normalised on its own."""

    def __init__(
        self, moe: MoEConfig, hidden: int, eps: float, take: Take, linear: MakeLinear
    ) -> None:
        names = ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2")
        self.dense_norm, self.routed_norm = (
            make_norm(take(f"{name}.weight", (hidden,)), eps) for name in names
        )
        self.input_norm = make_norm(take("pre_feedforward_layernorm_2.weight", (hidden,)), eps)
        self.experts = Experts(moe, hidden, eps, take, linear)

    def __call__(self, dense: Tensor, residual: Tensor) -> Tensor:
        routed = self.experts(residual, self.input_norm(residual))
        return self.routed_norm.add(self.dense_norm(dense), routed)


class _PerLayerInput:
    """Gates the token's per-layer embedding into the residual."""

    def __init__(self, hidden: int, ple_dim: int, eps: float, take: Take) -> None:
        gate, widen = ("per_layer_input_gate.weight", "per_layer_projection.weight")
        self.gate = make_linear(take_matrix(take, (gate, (ple_dim, hidden))))
        self.widen = make_linear(take_matrix(take, (widen, (hidden, ple_dim))))
        self.norm = make_norm(take("post_per_layer_input_norm.weight", (hidden,)), eps)

    def __call__(self, x: Tensor, ple: Tensor) -> Tensor:
        gated = F.gelu(self.gate(x), approximate="tanh").mul_(ple)
        return self.norm.add(x, self.widen(gated))
