"""The target and the drafter as torch modules, named exactly as transformers names their weights.

Weights are kept in f32; every product is done in the type of the activations, so the same modules
train in bf16 and evaluate in f32.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.attention import Masks, Rope, attend, rotate
from train.shapes import DrafterShape, LayerType, TargetShape

EPSILON = 1e-6


class KeysValues(NamedTuple):
    """Keys and values of a layer, each [batch, kv_heads, positions, head_dim]."""

    keys: Tensor
    values: Tensor


Store = Callable[[int, KeysValues], KeysValues]


class Linear(nn.Linear):
    """A bias-free product in the type of its input, initialised to keep the variance."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        nn.init.normal_(self.weight, std=inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` times the weight."""
        return F.linear(x, self.weight.to(x.dtype))


class Norm(nn.Module):
    """RMS norm computed in f32; its weight multiplies as it is."""

    def __init__(self, width: int, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled to unit mean square, times the weight, in the type of `x`."""
        return (unit(x.float()) * self.weight).to(x.dtype)


def unit(x: Tensor) -> Tensor:
    """Return `x` f32 scaled to unit mean square over its last dimension."""
    if torch.compiler.is_compiling():
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON)  # fused with the rest
    return F.rms_norm(x, x.shape[-1:], eps=EPSILON)  # one kernel where launches are the cost


class Attention(nn.Module):
    """Queries of one layer, and its keys and values unless it reads another layer's."""

    def __init__(self, shape: TargetShape, hidden: int, kind: LayerType, own: bool) -> None:
        super().__init__()
        self.dim = shape.head_dim(kind)
        self.q_proj = Linear(hidden, shape.heads * self.dim)
        self.o_proj = Linear(shape.heads * self.dim, hidden)
        self.q_norm = Norm(self.dim, self.dim**-0.25)
        if own:
            self.k_proj = Linear(hidden, shape.kv_heads * self.dim)
            self.v_proj = Linear(hidden, shape.kv_heads * self.dim)
            self.k_norm = Norm(self.dim, self.dim**-0.25)

    def heads(self, projection: nn.Module, x: Tensor) -> Tensor:
        """Return the projection of `x` as [batch, heads, positions, head_dim]."""
        out: Tensor = projection(x)
        batch, positions, _ = out.shape
        return out.view(batch, positions, -1, self.dim).transpose(1, 2)

    def keys_values(self, x: Tensor, table: Rope) -> KeysValues:
        """Return this layer's own keys, normed and turned, and values, normed only."""
        keys = rotate(self.k_norm(self.heads(self.k_proj, x).float()), table)
        values = unit(self.heads(self.v_proj, x).float())
        return KeysValues(keys.to(x.dtype), values.to(x.dtype))

    def forward(self, x: Tensor, table: Rope, mask: object, read: KeysValues) -> Tensor:
        """Return what the queries of `x` read."""
        queries = rotate(self.q_norm(self.heads(self.q_proj, x).float()), table).to(x.dtype)
        out = attend(queries, read.keys, read.values, mask)  # type: ignore[arg-type]
        joined: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return joined


class FeedForward(nn.Module):
    """The gated feed-forward part of a layer."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden, inner)
        self.up_proj = Linear(hidden, inner)
        self.down_proj = Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return the gated product."""
        gate = F.gelu(self.gate_proj(x), approximate="tanh")
        out: Tensor = self.down_proj(gate * self.up_proj(x))
        return out


class Layer(nn.Module):
    """A Gemma 4 layer: attention, feed-forward and, in targets, the per-layer input."""

    def __init__(
        self,
        shape: TargetShape,
        hidden: int,
        inner: int,
        kind: LayerType,
        own: bool,
        per_layer: int,
    ) -> None:
        super().__init__()
        self.input_layernorm = Norm(hidden)
        self.self_attn = Attention(shape, hidden, kind, own)
        self.post_attention_layernorm = Norm(hidden, 0.3)
        self.pre_feedforward_layernorm = Norm(hidden)
        self.mlp = FeedForward(hidden, inner)
        self.post_feedforward_layernorm = Norm(hidden, 0.3)
        self.layer_scalar = nn.Parameter(torch.ones(1))
        if per_layer:
            self.per_layer_input_gate = Linear(hidden, per_layer)
            self.per_layer_projection = Linear(per_layer, hidden)
            self.post_per_layer_input_norm = Norm(hidden, 0.1)

    def keys_values(self, x: Tensor, table: Rope) -> KeysValues:
        """Return the keys and values that this layer adds for `x`."""
        return self.self_attn.keys_values(self.input_layernorm(x), table)

    def read(
        self, x: Tensor, per_layer: Tensor | None, table: Rope, mask: object, read: KeysValues
    ) -> Tensor:
        """Return the layer's output for `x` [batch, positions, hidden], reading `read`."""
        seen = self.self_attn(self.input_layernorm(x), table, mask, read)
        x = x + self.post_attention_layernorm(seen)
        x = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        if per_layer is not None:
            gate = F.gelu(self.per_layer_input_gate(x), approximate="tanh")
            x = x + self.post_per_layer_input_norm(self.per_layer_projection(gate * per_layer))
        return x * self.layer_scalar.to(x.dtype)

    def forward(
        self,
        x: Tensor,
        per_layer: Tensor | None,
        table: Rope,
        mask: object,
        shared: KeysValues | None,
    ) -> tuple[Tensor, KeysValues]:
        """Return the layer's output and what it read: its own keys and values, or `shared`."""
        read = self.keys_values(x, table) if shared is None else shared
        return self.read(x, per_layer, table, mask, read), read


class Decoded(NamedTuple):
    """The target's final normed hidden states and the keys and values that a drafter reads."""

    hidden: Tensor  # [batch, positions, hidden]
    donors: dict[LayerType, KeysValues]


class TargetBody(nn.Module):
    """Embeddings, layers and final norm of the target."""

    def __init__(self, shape: TargetShape) -> None:
        super().__init__()
        self.shape = shape
        count, hidden = len(shape.layer_types), shape.hidden
        self.embed_tokens = nn.Embedding(shape.vocab, hidden)
        self.embed_tokens_per_layer = nn.Embedding(shape.vocab, count * shape.per_layer)
        self.per_layer_model_projection = Linear(hidden, count * shape.per_layer)
        self.per_layer_projection_norm = Norm(shape.per_layer)
        self.layers = nn.ModuleList(_target_layer(shape, index) for index in range(count))
        self.norm = Norm(hidden)
        nn.init.normal_(self.embed_tokens.weight, std=hidden**-0.5)
        nn.init.normal_(self.embed_tokens_per_layer.weight, std=shape.per_layer**-0.5)

    def embed(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the scaled embeddings, the scale rounded to `dtype` as transformers does."""
        scale = torch.tensor(self.shape.hidden**0.5, dtype=dtype).item()
        embedded: Tensor = self.embed_tokens(tokens).to(dtype) * scale
        return embedded

    def per_layer_inputs(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Return every layer's extra input, [batch, positions, layers, per_layer]."""
        width = self.shape.per_layer
        own = self.embed_tokens_per_layer(tokens).to(x.dtype) * width**0.5
        context = self.per_layer_model_projection(x) * self.shape.hidden**-0.5
        context = self.per_layer_projection_norm(context.unflatten(-1, (-1, width)))
        mixed: Tensor = (context + own.unflatten(-1, (-1, width))) * 2.0**-0.5
        return mixed

    def forward(
        self,
        tokens: Tensor,
        tables: dict[LayerType, Rope],
        masks: Masks,
        dtype: torch.dtype,
        store: Store | None = None,
    ) -> Decoded:
        """Return the hidden states of `tokens` [batch, positions].

        `store`, if given, takes each own-K/V layer's number, keys and values and returns what the
        layer shall read instead (a cache).
        """
        x = self.embed(tokens, dtype)
        extra = self.per_layer_inputs(tokens, x)
        donors: dict[LayerType, KeysValues] = {}
        for index, kind in enumerate(self.shape.layer_types):
            layer: Any = self.layers[index]
            shared = None
            if index >= self.shape.own_layers:
                shared = donors[kind]
            elif store is not None:
                shared = store(index, layer.keys_values(x, tables[kind]))
            x, read = layer(x, extra[:, :, index], tables[kind], masks.of(kind), shared)
            donors[kind] = read
        hidden: Tensor = self.norm(x)
        return Decoded(hidden, donors)


def _target_layer(shape: TargetShape, index: int) -> Layer:
    own = index < shape.own_layers
    inner = shape.intermediate * (1 if own else 2)
    return Layer(shape, shape.hidden, inner, shape.layer_types[index], own, shape.per_layer)


class Target(nn.Module):
    """The target: its body and a head tied to its embedding."""

    def __init__(self, shape: TargetShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = TargetBody(shape)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the softcapped logits of final hidden states, in their type."""
        raw = F.linear(hidden, self.model.embed_tokens.weight.to(hidden.dtype))
        return softcapped(raw, self.shape.softcap)


def softcapped(raw: Tensor, cap: float) -> Tensor:
    """Return `raw` bent to stay within ±cap."""
    return torch.tanh(raw / cap) * cap


class Clusters(nn.Module):
    """The drafter's coarse head: which clusters of tokens to score at all."""

    def __init__(self, shape: DrafterShape, vocab: int) -> None:
        super().__init__()
        self.centroids = Linear(shape.hidden, shape.clusters)
        self.register_buffer("token_ordering", torch.arange(vocab))
        self.token_ordering: Tensor


class DrafterBody(nn.Module):
    """The drafter's own embedding (its head), layers and final norm."""

    def __init__(self, shape: DrafterShape, target: TargetShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(target.vocab, shape.hidden)
        self.layers = nn.ModuleList(
            Layer(target, shape.hidden, shape.intermediate, kind, own=False, per_layer=0)
            for kind in shape.layer_types
        )
        self.norm = Norm(shape.hidden)


class Drafter(nn.Module):
    """The drafter: it turns a token and a hidden state into the next hidden state and logits."""

    def __init__(self, shape: DrafterShape, target: TargetShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = DrafterBody(shape, target)
        self.pre_projection = Linear(2 * target.hidden, shape.hidden)
        self.post_projection = Linear(shape.hidden, target.hidden)
        self.masked_embedding = Clusters(shape, target.vocab)

    def forward(
        self,
        embedded: Tensor,
        hidden: Tensor,
        tables: dict[LayerType, Rope],
        masks: Masks,
        donors: dict[LayerType, KeysValues],
    ) -> tuple[Tensor, Tensor]:
        """Return (next hidden state, normed state for the head) of one step.

        `embedded` and `hidden` are [batch, queries, target hidden]: the scaled target embedding of
        the last token and the hidden state before it.
        """
        x = self.pre_projection(torch.cat((embedded, hidden), dim=-1))
        layers: Any = self.model.layers
        for kind, layer in zip(self.shape.layer_types, layers, strict=True):
            x = layer.read(x, None, tables[kind], masks.of(kind), donors[kind])
        normed = self.model.norm(x)
        return self.post_projection(normed), normed

    def logits(self, normed: Tensor) -> Tensor:
        """Return the logits over the whole vocabulary (no softcap), in the type of `normed`."""
        return F.linear(normed, self.model.embed_tokens.weight.to(normed.dtype))

    def draft(self, normed: Tensor) -> Tensor:
        """Return the best token of the best clusters, as a runtime's centroid head chooses it."""
        scores = self.masked_embedding.centroids(normed)
        best = scores.topk(self.shape.top_clusters, dim=-1).indices
        ordering = self.masked_embedding.token_ordering.view(self.shape.clusters, -1)
        allowed = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)
        cluster_of = torch.empty_like(self.masked_embedding.token_ordering)
        cluster_of[ordering] = torch.arange(len(ordering), device=best.device)[:, None]
        logits = self.logits(normed).masked_fill(~allowed[..., cluster_of], -torch.inf)
        return logits.argmax(dim=-1)
