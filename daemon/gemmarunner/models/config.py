"""What a Gemma 4 target and drafter look like, as facts the decoder needs.

Read from Hugging Face's `config.json` by `hf_config.py`; nothing here knows that format.
"""

from dataclasses import dataclass
from typing import Literal

from gemmad.api.errors import LoadFailed, PairMismatch

LayerKind = Literal["sliding", "full"]


class ConfigError(LoadFailed):
    """A model's configuration says something this decoder can't do; names the key and value."""


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotation of `rotated_pairs` of the head's `head_dim / 2` pairs; the others stand still."""

    theta: float
    rotated_pairs: int
    factor: float  # positions are divided by it


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """One decoder layer."""

    kind: LayerKind
    head_dim: int
    kv_heads: int
    donor: int | None  # the layer of the same model whose K/V this one reads; None: its own
    intermediate: int
    k_eq_v: bool  # V comes from the raw K projection
    rope: RopeConfig


@dataclass(frozen=True, slots=True)
class MoEConfig:
    """A mixture of experts beside the dense MLP of every layer."""

    experts: int
    top_k: int
    intermediate: int


@dataclass(frozen=True, slots=True)
class TargetConfig:
    """A target's text stack."""

    vocab_size: int
    hidden: int
    heads: int
    layers: tuple[LayerConfig, ...]
    window: int  # a sliding layer's row sees this many positions, its own included
    eps: float
    softcap: float | None
    ple_dim: int  # per-layer embedding width; 0: none
    moe: MoEConfig | None
    max_positions: int
    pad_id: int
    suppress_tokens: tuple[int, ...]
    bidirectional_images: bool  # rows of one image see each other on sliding layers

    @property
    def sliding_donor(self) -> int:
        """Index of the sliding layer whose K/V the drafter reads."""
        return self._last_owner("sliding")

    @property
    def full_donor(self) -> int:
        """Index of the full layer whose K/V the drafter reads."""
        return self._last_owner("full")

    @property
    def first_shared(self) -> int:
        """Index of the first layer that writes no K/V; the number of layers where all write."""
        shared = (index for index, layer in enumerate(self.layers) if layer.donor is not None)
        return next(shared, len(self.layers))

    def _last_owner(self, kind: LayerKind) -> int:
        return max(
            index
            for index, layer in enumerate(self.layers)
            if layer.kind == kind and layer.donor is None
        )


@dataclass(frozen=True, slots=True)
class CentroidConfig:
    """A head that scores only the tokens of the `top_k` best of `centroids` clusters."""

    centroids: int
    top_k: int


@dataclass(frozen=True, slots=True)
class DrafterConfig:
    """A drafter (HF: assistant). Its layers own no K/V: they read the target's donors'."""

    vocab_size: int
    hidden: int
    heads: int
    layers: tuple[LayerConfig, ...]
    window: int
    eps: float
    backbone: int  # hidden size of the target it was made for
    centroid: CentroidConfig | None  # None: a dense head
    max_positions: int


def check_pair(target: TargetConfig, drafter: DrafterConfig) -> None:
    """Holds afterwards: this drafter can read this target's hidden rows and K/V.

    Raises:
        PairMismatch: naming what differs and both values.
    """
    facts = [
        ("backbone_hidden_size", drafter.backbone, target.hidden),
        ("vocab_size", drafter.vocab_size, target.vocab_size),
        ("sliding_window", drafter.window, target.window),
    ]
    donors = {
        "sliding": target.layers[target.sliding_donor],
        "full": target.layers[target.full_donor],
    }
    for layer in drafter.layers:
        donor = donors[layer.kind]
        facts.append((f"K/V heads of {layer.kind} layers", layer.kv_heads, donor.kv_heads))
        facts.append((f"head dim of {layer.kind} layers", layer.head_dim, donor.head_dim))
    for name, drafters, targets in facts:
        if drafters != targets:
            raise PairMismatch(
                f"This drafter does not belong to this target: {name} is {drafters} in the "
                f"drafter and {targets} in the target.",
                fix="Use the drafter made for exactly this target, or run the target alone.",
            )
