"""What of a pair decides its memory: its matrices as stored, and its layers; pure.

Names of tensors are sorted into roles, in Hugging Face's words and in GGUF's. Sizes come from the
tensors themselves; of the configuration only what tensors don't say is asked.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gemmad.memory.roles import Role, role_of

LayerKind = Literal["sliding", "full"]


class Tensor(NamedTuple):
    """One tensor of a file."""

    name: str
    kind: str  # how it is stored: BF16, Q4_0, I64
    shape: tuple[int, ...]  # rows first


class Matrix(NamedTuple):
    """What a decoder keeps as one, and how often: layers are alike, and so are experts."""

    role: Role
    kind: str
    rows: int
    columns: int
    copies: int = 1

    @property
    def elements(self) -> int:
        """Weights of all of them."""
        return self.rows * self.columns * self.copies


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One decoder layer."""

    kind: LayerKind
    head_dim: int
    q_width: int  # of all query heads
    kv_width: int  # of all key heads; a position's keys and values are two of it
    owns_kv: bool
    inner: int  # of the dense MLP


class Routed(NamedTuple):
    """One layer's experts together."""

    top_k: int  # that a row is sent to
    units: int  # inner width of one
    up: int  # weights of gates and ups
    down: int


@dataclass(frozen=True, slots=True)
class HalfShape:
    """A target, or a drafter."""

    hidden: int
    vocab: int
    window: int
    layers: tuple[LayerShape, ...]
    matrices: tuple[Matrix, ...]
    routed: Routed | None = None
    ple_dim: int = 0
    context_length: int = 0  # that it was made for; 0: not said
    media_bytes: int = 0  # of towers in the same files
    floating: str = "BF16"  # how most of its plain numbers are stored
    is_gguf: bool = False
    by_layer: tuple[tuple[Matrix, ...], ...] = ()  # of `matrices`, those of each layer

    def of(self, *roles: Role) -> list[Matrix]:
        """The matrices with one of these roles."""
        return [matrix for matrix in self.matrices if matrix.role in roles]

    @property
    def first_shared(self) -> int:
        """The first layer without keys and values of its own; the number of layers if none."""
        shared = (i for i, layer in enumerate(self.layers) if not layer.owns_kv)
        return next(shared, len(self.layers))

    @property
    def first_read_elsewhere(self) -> int:
        """The first layer whose keys and values others read: shared layers, and the drafter's."""
        owners = [i for i, layer in enumerate(self.layers) if layer.owns_kv]
        last = {self.layers[index].kind: index for index in owners}  # of each kind
        return min(last.values())

    @property
    def elements(self) -> int:
        """All weights."""
        return sum(matrix.elements for matrix in self.matrices)


@dataclass(frozen=True, slots=True)
class PairShape:
    """A target and perhaps its drafter."""

    target: HalfShape
    drafter: HalfShape | None = None
    projector_bytes: int = 0  # of towers in files of their own


class Facts(NamedTuple):
    """What a configuration says that tensors don't."""

    kinds: tuple[LayerKind, ...]
    window: int
    shared: int = 0  # layers at the end that read another's keys and values
    top_k: int = 0
    context_length: int = 0
    is_gguf: bool = False


_KEYS_AND_VALUES = ("k_proj", "v_proj", "attn_k", "attn_v")
_Q_NORMS = ("q_norm", "attn_q_norm")
_LAYER = re.compile(r"(?:^|\.)(?:layers|blk)\.(\d+)\.")


def half_shape(tensors: Iterable[Tensor], facts: Facts) -> HalfShape:
    """The shape of a model with these text tensors.

    Raises:
        ValueError: tensors or layers are missing that every Gemma 4 has.
    """
    sorted_in = _Sorted(facts)
    for tensor in tensors:
        sorted_in.add(tensor)
    table = sorted_in.table
    layers = tuple(sorted_in.layer(index) for index in range(len(facts.kinds)))
    return HalfShape(
        hidden=sorted_in.hidden,
        vocab=table.rows,
        window=facts.window,
        layers=layers,
        matrices=_together(sorted_in.matrices.values()),
        routed=sorted_in.routed,
        ple_dim=sorted_in.ple_columns // len(layers),
        context_length=facts.context_length,
        floating=table.kind if table.kind in ("BF16", "F16", "F32") else "BF16",
        is_gguf=facts.is_gguf,
        by_layer=tuple(sorted_in.matrices_of(index) for index in range(len(layers))),
    )


class _Sorted:
    """Tensors by layer and role, those of one product and one kind joined."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._owners = len(facts.kinds) - facts.shared
        self._key_rows: dict[int, int] = {}
        self._head_dims: dict[int, int] = {}
        self.matrices: dict[tuple[int, Role, str], Matrix] = {}

    def add(self, tensor: Tensor) -> None:
        found = _LAYER.search(tensor.name)
        layer = int(found[1]) if found else -1
        role, part = role_of(tensor.name), tensor.name.split(".")[-2:]
        if part[0] in _Q_NORMS:
            self._head_dims[layer] = tensor.shape[0]
        if part[0] in _KEYS_AND_VALUES and not self._owns(layer):
            return  # files may carry what nobody reads
        if part[0] in ("k_proj", "attn_k"):
            self._key_rows[layer] = tensor.shape[0]
        matrix = _matrix(role, tensor)
        before = self.matrices.get((layer, role, tensor.kind))
        if before is not None and role == "small":
            matrix = matrix._replace(columns=before.columns + matrix.columns)
        elif before is not None:  # one under the other; experts of a file may come one by one
            matrix = matrix._replace(rows=before.rows + matrix.rows)
        self.matrices[layer, role, tensor.kind] = matrix

    def layer(self, index: int) -> LayerShape:
        output, gate_up = self._rows(index, "output"), self._rows(index, "gate_up")
        q_width, own = output[1], self._owns(index)
        key_rows = self._key_rows.get(index, 0)
        if own and not key_rows:  # queries, keys and values are one tensor
            key_rows = (self._rows(index, "qkv")[0] - q_width) // 2
        return LayerShape(
            kind=self._facts.kinds[index],
            head_dim=self._head_dims.get(index, 256),
            q_width=q_width,
            kv_width=key_rows,
            owns_kv=own,
            inner=gate_up[0] // 2,
        )

    def matrices_of(self, index: int) -> tuple[Matrix, ...]:
        """One layer's own."""
        return _together(m for (layer, _, _), m in self.matrices.items() if layer == index)

    @property
    def table(self) -> Matrix:
        found = [m for m in self.matrices.values() if m.role == "table"]
        if len(found) != 1:
            raise ValueError("there is no table of embeddings")
        return found[0]

    @property
    def hidden(self) -> int:
        return self._rows(0, "output")[0]

    @property
    def ple_columns(self) -> int:
        return next((m.columns for m in self.matrices.values() if m.role == "ple_table"), 0)

    @property
    def routed(self) -> Routed | None:
        by_role = {role: m for (layer, role, _), m in self.matrices.items() if layer == 0}
        if "experts_up" not in by_role:
            return None
        up, down = by_role["experts_up"], by_role["experts_down"]
        return Routed(self._facts.top_k, down.columns, up.elements, down.elements)

    def _owns(self, layer: int) -> bool:
        return layer < self._owners

    def _rows(self, layer: int, role: Role) -> tuple[int, int]:
        found = [m for key, m in self.matrices.items() if key[:2] == (layer, role)]
        if not found:
            raise ValueError(f"layer {layer} has no {role}")
        return sum(m.rows for m in found), found[0].columns


def _together(matrices: Iterable[Matrix]) -> tuple[Matrix, ...]:
    """Those that differ, each with how often it is there: layers are much alike."""
    counts: Counter[Matrix] = Counter()
    for matrix in matrices:
        counts[matrix._replace(copies=1)] += matrix.copies
    return tuple(matrix._replace(copies=copies) for matrix, copies in counts.items())


def _matrix(role: Role, tensor: Tensor) -> Matrix:
    shape = tensor.shape
    if len(shape) == 3:
        return Matrix(role, tensor.kind, shape[1], shape[2], shape[0])
    if len(shape) == 2:
        return Matrix(role, tensor.kind, shape[0], shape[1])
    elements = 1
    for length in shape:
        elements *= length
    return Matrix(role, tensor.kind, 1, elements)
