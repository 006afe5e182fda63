"""Reads the metadata of Gemma 4 GGUF files, targets and drafters, into what decoders need.

What differs between layers is a number or an array of them; which layers slide is an array of
flags. Files do not say which layers take values from the keys' projection, nor how much of a head
turns in full layers: tensors do, by their absence and in `rope_freqs`.
"""

import torch

from gemmarunner.models.config import (
    CentroidConfig,
    ConfigError,
    DrafterConfig,
    LayerConfig,
    LayerKind,
    MoEConfig,
    RopeConfig,
    TargetConfig,
)
from gemmarunner.models.gguf_file import GgufModel, Keys
from gemmarunner.models.gguf_names import FUSED_QKV, ROPE_FREQS
from gemmarunner.models.mapped import MappedFiles

TARGETS = ("gemma4",)
DRAFTERS = ("gemma4-assistant", "gemma4_assistant")
CENTROID_TOP_K = "centroid_intermediate_top_k"  # ours: other writers leave it out
_DEFAULT_TOP_K = 32  # of every published drafter
_TURNS = 1.0  # in rope_freqs: the pair turns
_STANDS_STILL = 1e29  # so large a divisor that the angle is 0
_SOFTCAP = 30.0
_PATTERN = 6


def read_target_config(model: GgufModel) -> TargetConfig:
    """The target that a GGUF file describes.

    Raises:
        ConfigError: naming the key and the value that can't be read or isn't supported.
    """
    _check_architecture(model, TARGETS, "a Gemma 4 target")
    keys = model.keys()
    ple_dim = keys.integer("embedding_length_per_layer_input", 0)
    return TargetConfig(
        vocab_size=_rows(model, "token_embd.weight"),
        hidden=keys.integer("embedding_length"),
        heads=_heads(keys),
        layers=_layers(model, keys, keys.integer("attention.shared_kv_layers", 0)),
        window=keys.integer("attention.sliding_window"),
        eps=_eps(keys),
        softcap=keys.number("final_logit_softcapping", _SOFTCAP) or None,
        ple_dim=ple_dim,
        moe=_moe(model, keys),
        max_positions=keys.integer("context_length", 131_072),
        pad_id=_pad_id(model),
        suppress_tokens=_suppressed(model),
        # The two small models read images causally; they are the ones with per-layer embeddings.
        bidirectional_images=ple_dim == 0,
    )


def read_drafter_config(model: GgufModel) -> DrafterConfig:
    """The drafter that a GGUF file describes.

    Raises:
        ConfigError: naming the key and the value that can't be read or isn't supported.
    """
    _check_architecture(model, DRAFTERS, "a Gemma 4 drafter")
    keys = model.keys()
    vocab_size = _rows(model, "token_embd.weight")
    return DrafterConfig(
        vocab_size=vocab_size,
        hidden=keys.integer("embedding_length"),
        heads=_heads(keys),
        layers=_layers(model, keys, 0),
        window=keys.integer("attention.sliding_window"),
        eps=_eps(keys),
        backbone=_backbone(model, keys),
        centroid=_centroid(model, keys, vocab_size),
        max_positions=keys.integer("context_length", 131_072),
    )


def _check_architecture(model: GgufModel, wanted: tuple[str, ...], what: str) -> None:
    if model.architecture not in wanted:
        raise ConfigError(
            f"The GGUF file's architecture is {model.architecture[:40]!r}; {what} has "
            f"{' or '.join(wanted)}.",
            fix="Use a GGUF file of Gemma 4.",
        )


def _layers(model: GgufModel, keys: Keys, shared: int) -> tuple[LayerConfig, ...]:
    count = keys.integer("block_count")
    if not 0 < count <= 1000 or not 0 <= shared < count:
        raise keys.refused("block_count", "more layers than attention.shared_kv_layers")
    kinds = _kinds(keys, count)
    head_dims = {
        "full": keys.integer("attention.key_length"),
        "sliding": keys.integer("attention.key_length_swa"),
    }
    kv_heads = keys.per_layer("attention.head_count_kv", count)
    widths = keys.per_layer("feed_forward_length", count)
    ropes = {kind: _rope(model, keys, kind, head_dims[kind]) for kind in set(kinds)}
    first_shared = count - shared
    return tuple(
        LayerConfig(
            kind=kind,
            head_dim=head_dims[kind],
            kv_heads=kv_heads[index],
            donor=_donor(keys, kinds, first_shared, kind) if index >= first_shared else None,
            intermediate=widths[index],
            k_eq_v=_k_eq_v(model, index),
            rope=ropes[kind],
        )
        for index, kind in enumerate(kinds)
    )


def _kinds(keys: Keys, count: int) -> list[LayerKind]:
    key = "attention.sliding_window_pattern"
    if not keys.has(key):
        raise keys.refused(key, f"a flag for each of {count} layers")
    flags = keys.per_layer(key, count)
    if any(flag not in (0, 1) for flag in flags):  # one number: every so many layers one is full
        return ["full" if (i + 1) % flags[0] == 0 else "sliding" for i in range(count)]
    return ["sliding" if flag else "full" for flag in flags]


def _donor(keys: Keys, kinds: list[LayerKind], first_shared: int, kind: LayerKind) -> int:
    owners = [index for index in range(first_shared) if kinds[index] == kind]
    if not owners:
        raise keys.refused("attention.shared_kv_layers", f"a {kind} layer with K/V")
    return owners[-1]


def _k_eq_v(model: GgufModel, index: int) -> bool:
    """Whether a layer has keys and no values of its own."""
    has = {name: f"blk.{index}.{name}" in model.tensors for name in ("attn_v.weight", FUSED_QKV)}
    return f"blk.{index}.attn_k.weight" in model.tensors and not any(has.values())


def _rope(model: GgufModel, keys: Keys, kind: LayerKind, head_dim: int) -> RopeConfig:
    suffix = "_swa" if kind == "sliding" else ""
    if keys.integer(f"rope.dimension_count{suffix}", head_dim) != head_dim:
        raise keys.refused(f"rope.dimension_count{suffix}", f"the head's {head_dim}")
    if keys.number("rope.scaling.factor", 1.0) not in (0.0, 1.0):
        raise keys.refused("rope.scaling.factor", "1")
    default = 10_000.0 if kind == "sliding" else 1e6
    pairs = _turning_pairs(model, head_dim) if kind == "full" else head_dim // 2
    return RopeConfig(keys.number(f"rope.freq_base{suffix}", default), pairs, 1.0)


def _turning_pairs(model: GgufModel, head_dim: int) -> int:
    """How many of a full layer's pairs turn: the first ones, as `rope_freqs` says."""
    if ROPE_FREQS not in model.tensors:
        return head_dim // 8
    info, path, _ = model.tensors[ROPE_FREQS]
    right = info.type == 0 and info.shape == (head_dim // 2,)
    if right:
        freqs = MappedFiles().view(path, info.begin, info.nbytes).view(torch.float32)
        pairs = int((freqs == _TURNS).sum())
        right = bool((freqs[:pairs] == _TURNS).all() and (freqs[pairs:] >= _STANDS_STILL).all())
    if not right:
        raise ConfigError(
            f"The GGUF file's {ROPE_FREQS} is not {head_dim // 2} numbers, first 1, then 1e30.",
            fix="Is this a Gemma 4 model, and its file whole?",
        )
    return pairs


def _heads(keys: Keys) -> int:
    heads = set(keys.per_layer("attention.head_count", 1))
    if keys.has("attention.head_count"):
        heads = set(keys.per_layer("attention.head_count", keys.integer("block_count")))
    if len(heads) != 1:
        raise keys.refused("attention.head_count", "one number for all layers")
    return heads.pop()


def _eps(keys: Keys) -> float:
    # A float32 on disk: 1e-6 comes back as 9.999999974752427e-07, and the model was made with 1e-6.
    return float(f"{keys.number('attention.layer_norm_rms_epsilon', 1e-6):.6g}")


def _moe(model: GgufModel, keys: Keys) -> MoEConfig | None:
    experts = keys.integer("expert_count", 0)
    if not experts:
        return None
    stored = model.tensors.get("blk.0.ffn_down_exps.weight")
    key = "expert_feed_forward_length"
    if keys.has(key):
        width = keys.per_layer(key, 1)[0]
    elif stored is not None:
        width = stored.info.shape[-1]
    else:
        raise keys.refused(key, "a number")
    return MoEConfig(experts, keys.integer("expert_used_count"), width)


def _backbone(model: GgufModel, keys: Keys) -> int:
    """Hidden size of the drafter's target; older writers leave it to the tensors."""
    if keys.has("embedding_length_out"):
        return keys.integer("embedding_length_out")
    return _rows(model, "nextn.post_projection.weight")


def _centroid(model: GgufModel, keys: Keys, vocab_size: int) -> CentroidConfig | None:
    """The clustered head, if the file has it; most writers leave it out."""
    stored = model.tensors.get("masked_embd_centroids.weight")
    names = ("masked_embd_ordering", "masked_embd_ordering.weight")
    if stored is None or not any(name in model.tensors for name in names):
        return None
    count = stored.info.shape[0]
    if vocab_size % count:
        raise ConfigError(
            f"The drafter's {count} clusters do not divide its vocabulary of {vocab_size}.",
            fix="Pull the model again.",
        )
    return CentroidConfig(count, min(count, keys.integer(CENTROID_TOP_K, _DEFAULT_TOP_K)))


def _rows(model: GgufModel, name: str) -> int:
    stored = model.tensors.get(name)
    if stored is None or len(stored.info.shape) != 2:
        raise ConfigError(f"The GGUF file lacks the matrix {name}.", fix="Pull the model again.")
    return stored.info.shape[0]


def _pad_id(model: GgufModel) -> int:
    value = model.metadata.get("tokenizer.ggml.padding_token_id", 0)
    return value if type(value) is int else 0


def _suppressed(model: GgufModel) -> tuple[int, ...]:
    found = model.metadata.get("tokenizer.ggml.suppress_tokens", [])
    if isinstance(found, bool | int | float | str):
        return ()
    return tuple(int(item) for item in found)
