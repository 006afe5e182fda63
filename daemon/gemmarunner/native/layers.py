"""Few rows through decoder layers in one call of the library: the structures of src/layers.c."""

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.native.library import Matrix, library
from gemmarunner.native.linear import Native


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in (
            "project", "output", "gate_up", "down", "ple_gate", "ple_widen",
            "input_norm", "head_norm", "attention_norm", "mlp_norm", "post_mlp_norm", "ple_norm",
        )),
        ("floor", c_float), ("head_floor", c_float), ("scalar", c_float),
        ("heads", c_int32), ("kv_heads", c_int32), ("width", c_int32), ("half", c_int32),
        ("k_eq_v", c_int32), ("shape", c_int32),
        ("experts", c_void_p),
    )  # fmt: skip


class _Experts(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in (
            "router", "gate_up", "down",
            "router_norm", "input_norm", "dense_norm", "routed_norm", "scale",
        )),
        ("count", c_int32), ("best", c_int32),
    )  # fmt: skip


class _Places(ctypes.Structure):
    _fields_ = tuple((name, c_void_p) for name in ("cos", "sin", "slots", "begins", "ends"))


class _Step(ctypes.Structure):
    _fields_ = (
        ("rows", c_int32), ("hidden", c_int32), ("most_seen", c_int32),
        ("sequences", c_void_p), ("places", c_void_p), ("stores", c_void_p), ("spans", c_void_p),
        ("store_columns", c_int32),
        ("ple", c_void_p), ("ple_row", c_int64), ("ple_layer", c_int64),
    )  # fmt: skip


class Norm(NamedTuple):
    """x weight / hypot(|x|, floor)."""

    weight: Tensor  # f32
    floor: float


class ExpertParts(NamedTuple):
    """The routed half of a layer: matrices of all experts are of one kind and shape."""

    router: Native
    gate_up: Sequence[Native]
    down: Sequence[Native]
    router_norm: Norm
    input_norm: Norm
    dense_norm: Norm
    routed_norm: Norm
    scale: Tensor  # [experts] f32
    best: int  # experts that a row goes through


class LayerParts(NamedTuple):
    """A layer's weights and geometry."""

    project: Native
    output: Native
    gate_up: Native
    down: Native
    ple: tuple[Native, Native, Norm] | None  # gate, widen
    input_norm: Norm
    head_norm: Norm  # weight [heads and K/V heads, width]
    attention_norm: Norm
    mlp_norm: Norm
    post_mlp_norm: Norm
    scalar: float
    heads: int
    kv_heads: int
    width: int
    k_eq_v: bool
    shape: int  # index into a step's places
    experts: ExpertParts | None = None


class Places(NamedTuple):
    """Where rows stand in layers of one shape."""

    cos: Tensor  # [rows, 1, width]
    sin: Tensor  # [rows, 1, width]
    slots: Sequence[int]  # where each row's K and V go
    begins: Sequence[int]  # the first slot that each row sees
    ends: Sequence[int]  # one past the last


class Layers:
    """Layers that lie one after the other."""

    def __init__(self, parts: Sequence[LayerParts], hidden: int) -> None:
        found = library()
        assert found is not None
        self._run = found.gm_layers
        self._parts = list(parts)  # they own what the structures point to
        self._kept: list[object] = []
        self._layers = (_Layer * len(self._parts))(*map(self._structure, self._parts))
        self._hidden = hidden

    def __call__(
        self,
        begin: int,
        end: int,
        x: Tensor,  # [rows, hidden] f32; changed
        sequences: Sequence[int],  # of each row
        places: Sequence[Places],  # of each shape
        stores: Sequence[Sequence[Tensor]],  # of each layer from `begin` on: of each sequence
        ple: Tensor | None = None,  # [rows, layers, dim], of all layers
    ) -> Tensor:
        """`x` after layers begin..end-1, which wrote their K and V into the stores."""
        step, held = self._step(x.shape[0], sequences, places, stores)
        if ple is not None:
            step.ple = ple.data_ptr() + ple.element_size() * begin * ple.stride(1)
            step.ple_row, step.ple_layer = ple.stride(0), ple.stride(1)
        first = ctypes.addressof(self._layers) + begin * ctypes.sizeof(_Layer)
        threads = torch.get_num_threads()
        if self._run(first, end - begin, ctypes.addressof(step), x.data_ptr(), threads):
            raise MemoryError("no memory for a round's activations")
        del held  # until here the step points into it
        return x

    def _step(
        self,
        rows: int,
        sequences: Sequence[int],
        places: Sequence[Places],
        stores: Sequence[Sequence[Tensor]],
    ) -> tuple[_Step, list[object]]:
        """The step, and what must live as long as it is used."""
        every = [store for of_layer in stores for store in of_layer]
        pointers = (c_void_p * len(every))(*(store.data_ptr() for store in every))
        spans = (c_int64 * len(every))(*(store.stride(0) for store in every))
        owners = (c_int32 * rows)(*sequences)
        held: list[object] = [pointers, spans, owners]
        placed = (_Places * len(places))(*(_placed(place, held) for place in places))
        held.append(placed)
        most = max(end - begin for p in places for begin, end in zip(p.begins, p.ends, strict=True))
        step = _Step(rows=rows, hidden=self._hidden, most_seen=most, store_columns=len(stores[0]))
        step.sequences, step.places = ctypes.addressof(owners), ctypes.addressof(placed)
        step.stores, step.spans = ctypes.addressof(pointers), ctypes.addressof(spans)
        return step, held

    def _structure(self, part: LayerParts) -> _Layer:
        norms = self._norms(
            part, "input_norm", "head_norm", "attention_norm", "mlp_norm", "post_mlp_norm"
        )
        layer = _Layer(
            project=part.project.address, output=part.output.address,
            gate_up=part.gate_up.address, down=part.down.address, **norms,
            floor=part.input_norm.floor, head_floor=part.head_norm.floor, scalar=part.scalar,
            heads=part.heads, kv_heads=part.kv_heads, width=part.width, half=part.width // 2,
            k_eq_v=part.k_eq_v, shape=part.shape,
        )  # fmt: skip
        if part.ple is not None:
            gate, widen, norm = part.ple
            layer.ple_gate, layer.ple_widen = gate.address, widen.address
            layer.ple_norm = self._floats(norm.weight)
        if part.experts is not None:
            layer.experts = self._experts(part.experts)
        return layer

    def _experts(self, part: ExpertParts) -> int:
        arrays = [
            (Matrix * len(them))(*(one.matrix for one in them))
            for them in (part.gate_up, part.down)
        ]
        experts = _Experts(
            router=part.router.address,
            gate_up=ctypes.addressof(arrays[0]),
            down=ctypes.addressof(arrays[1]),
            scale=self._floats(part.scale),
            count=len(part.gate_up),
            best=part.best,
            **self._norms(part, "router_norm", "input_norm", "dense_norm", "routed_norm"),
        )
        self._kept += [experts, *arrays]
        return ctypes.addressof(experts)

    def _norms(self, part: object, *names: str) -> dict[str, int]:
        return {name: self._floats(getattr(part, name).weight) for name in names}

    def _floats(self, weight: Tensor) -> int:
        weight = weight.contiguous()
        self._kept.append(weight)
        return weight.data_ptr()


def _placed(place: Places, held: list[object]) -> _Places:
    cos, sin = place.cos.contiguous(), place.sin.contiguous()
    slots, begins, ends = (
        (c_int32 * len(numbers))(*numbers) for numbers in (place.slots, place.begins, place.ends)
    )
    held += [cos, sin, slots, begins, ends]
    return _Places(cos.data_ptr(), sin.data_ptr(), *map(ctypes.addressof, (slots, begins, ends)))
