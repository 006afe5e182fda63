"""A Gemma 4 target on fused operators: steps of several sequences, and prompts of one.

Computes what `models.target.Target` computes. T is the model's dtype, R the rows of a step.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.cuda.layer import Layer, LayerPlan, Pack, as_it_is, laid_out, layer_take
from gemmarunner.cuda.seams import hand_over, on_device
from gemmarunner.cuda.slots import Slots
from gemmarunner.kernels.attention import attend, chunk_for
from gemmarunner.kernels.embed import embed, ple_rows
from gemmarunner.kernels.launch import only_builds
from gemmarunner.kernels.linear import head, matmul
from gemmarunner.kernels.norm import Normed, norm
from gemmarunner.kernels.prompt_attention import attend_prompt, store_prompt
from gemmarunner.kernels.rows import Chunk, Rows
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.split import Split, layer_devices, stretches, taking_to
from gemmarunner.models.weights import Lookup, Take, take_head, take_matrix, take_table


class Tail(NamedTuple):
    """A prompt's last row, halfway: where rows nobody asked for need not go on."""

    x: Tensor  # [1, hidden] f32, the residual stream before layer `layer`
    normed: Tensor  # [1, hidden] T
    ple: Tensor | None  # [layers, 1, ple_dim] T
    layer: int
    rows: Rows  # the one row


class Passing(NamedTuple):
    """A step's rows on their way through layers, all on one device."""

    x: Tensor  # [R, hidden] f32, the residual stream
    normed: Tensor  # [R, hidden] T
    ple: Tensor | None  # [layers from `first` on, R, ple_dim] T
    rows: Rows
    first: int = 0
    length: Tensor | None = None  # of a prompt's chunk

    def own_ple(self, index: int) -> Tensor | None:
        """A layer's own embeddings [R, ple_dim] T."""
        return None if self.ple is None else self.ple[index - self.first]


class CudaTarget:
    """A target's weights; keys and values are the caller's `Slots`."""

    def __init__(
        self,
        config: TargetConfig,
        take: Take,
        device: torch.device,
        dtype: torch.dtype,
        *,
        pack: Pack = as_it_is,
        ple_on_host: bool = False,
        split: Split = (),
    ) -> None:
        """`pack`: how matrices are kept; `ple_on_host`: the per-layer table in pinned memory.

        `split`: layers are on these devices, all else beside the last ones; see `models/split.py`.
        """
        self.config = config
        self.layer_devices = layer_devices(split, config, device)
        self.device = device
        self.dtype = dtype
        shape = (config.vocab_size, config.hidden)
        self.table = take_table(take, "embed_tokens.weight", shape)
        # bf16 holds sqrt(1536) = 39.19 as 39.25, and the models were trained with that
        self.scale: float = torch.tensor(config.hidden**0.5, dtype=dtype).item()
        self._head = pack("head", take_head(take, self.table, shape, dtype))
        if isinstance(self.table, Tensor):  # else its rows are looked up in the same memory
            self._head = laid_out(self._head)
        self._ple = (
            _PerLayerTable(config, take, dtype, pack, ple_on_host) if config.ple_dim else None
        )
        self._layers = [self._built(index, take, pack) for index in range(len(config.layers))]
        final = take("norm.weight", (config.hidden,)).float()
        norms = [layer.input_norm for layer in self._layers] + [final]
        # Each where it is used: at the end of the layer before.
        places = zip(norms, [device, *self.layer_devices], strict=True)
        self._norms = [weight.to(place) for weight, place in places]
        suppressed = config.suppress_tokens
        self.suppressed = torch.tensor(suppressed, device=device) if suppressed else None

    def _built(self, index: int, take: Take, pack: Pack) -> Layer:
        config, layer, device = self.config, self.config.layers[index], self.layer_devices[index]
        plan = LayerPlan(
            layer,
            config.hidden,
            config.heads,
            config.eps,
            self.dtype,
            owns_kv=layer.donor is None,
            ple_dim=config.ple_dim,
            moe=config.moe,
        )
        own = layer_take(take, index)
        if device == self.device:
            return Layer(plan, own, pack)
        with on_device(device):
            return Layer(plan, taking_to(own, device), pack)

    @property
    def multiplies_plainly(self) -> bool:
        """Whether many rows too are multiplied by matrices as they are: none packed, no experts."""
        return all(layer.is_plain for layer in self._layers)

    @torch.inference_mode()
    def step(self, ids: Tensor, rows: Rows, slots: Slots) -> Tensor:
        """Final hidden rows [R, hidden] T of tokens `ids` [R] int64; their K/V are in `slots`.

        Nothing here waits for the device or depends on what the tensors hold.
        """
        x, ple = self._embed(ids)
        normed = norm(x, self._norms[0], self.config.eps, self.dtype)
        return self._run(0, Passing(x, normed, ple, rows), slots)

    @torch.inference_mode()
    def read(self, ids: Tensor, chunk: Chunk, slots: Slots) -> Tail:
        """Reads `ids` [N] int64 of a prompt, N with its padding; `finish` gives the last row.

        Rows but the last stop once the last layer with keys of its own has them. Up to `MAX_TILE`
        rows, and beyond where there are no experts, nothing here waits for the device or depends on
        what the tensors hold.
        """
        x, ple = self._embed(ids)
        normed = norm(x, self._norms[0], self.config.eps, self.dtype)
        last = self.config.first_shared - 1

        def through(index: int, at: Passing) -> Normed:
            layer, cache = self._layers[index], slots.cache(index)
            assert at.length is not None
            here = Chunk(at.rows, at.length)
            q, new = layer.heads(at.normed, at.rows)
            attended = attend_prompt(q, new, cache, here, self._window(index))
            store_prompt(new, cache, here)
            return layer.finish(at.x, attended, at.own_ple(index), self._norms[index + 1])

        begin = Passing(x, normed, ple, chunk.rows, length=chunk.length)
        x, normed, *_ = self._through(0, last, begin, through)
        _, new = self._layers[last].heads(normed, chunk.rows)
        store_prompt(new, slots.cache(last), chunk)
        final = (chunk.length - 1).long()
        ple = None if ple is None else ple.index_select(1, final)
        one = Rows(chunk.rows.slot, chunk.rows.start + chunk.length - 1, 1)
        return Tail(x.index_select(0, final), normed.index_select(0, final), ple, last, one)

    @torch.inference_mode()
    def finish(self, tail: Tail, slots: Slots) -> Tensor:
        """The final hidden row [1, hidden] T of a prompt's last token."""
        passing = Passing(tail.x, tail.normed, tail.ple, tail.rows)
        return self._run(tail.layer, passing, slots)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [R, vocabulary] f32 of final hidden rows [R, hidden], softcapped."""
        return head(hidden, self._head, self.config.softcap)

    def embed_for_draft(self, ids: Tensor) -> Tensor:
        """Scaled embedding rows [R, hidden] f32, as a drafter reads them."""
        if isinstance(self.table, Tensor):
            return embed(ids, self.table, self.scale)
        return _rows_of(self.table, ids, torch.float32) * self.scale

    def _embed(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """The residual stream [R, hidden] f32 and per-layer embeddings [layers, R, ple_dim] T."""
        x = self.embed_for_draft(ids)
        return x, None if self._ple is None else self._ple(ids, x)

    def _run(self, begin: int, passing: Passing, slots: Slots) -> Tensor:
        """A step's rows through the layers from `begin` on, and the final norm."""

        def through(index: int, at: Passing) -> Normed:
            layer, donor = self._layers[index], self.config.layers[index].donor
            cache = slots.cache(index if donor is None else donor)
            q = layer.queries(at.normed, at.rows, cache if donor is None else None)
            chunk = chunk_for(cache.shape[3])
            attended = attend(q, cache, at.rows, window=self._window(index), lag=0, chunk=chunk)
            return layer.finish(at.x, attended, at.own_ple(index), self._norms[index + 1])

        return self._through(begin, len(self._layers), passing, through).normed

    def _through(
        self, begin: int, end: int, home: Passing, through: Callable[[int, Passing], Normed]
    ) -> Passing:
        """Rows through layers begin..end-1, each on its device, and back to where they began."""
        at, place = home, self.device
        for first, last, device in stretches(self.layer_devices, begin, end):
            if device != place:
                at, place = self._handed(at, home, device, first, last), device
            with on_device(device):
                for index in range(first, last):
                    x, (normed,) = through(index, at)
                    at = at._replace(x=x, normed=normed)
        return at if place == self.device else self._handed(at, home, self.device, end, end)

    def _handed(
        self, at: Passing, home: Passing, device: torch.device, first: int, last: int
    ) -> Passing:
        """The rows on `device`, with all that layers first..last-1 need there."""
        if device == self.device:
            x, normed = hand_over([at.x, at.normed], device)
            return home._replace(x=x, normed=normed)
        ple = None if home.ple is None else home.ple[first:last]
        optional = [tensor for tensor in (ple, home.length) if tensor is not None]
        given = [at.x, at.normed, home.rows.slot, home.rows.start, *optional]
        x, normed, slot, start, *others = hand_over(given, device)
        length = None if home.length is None else others.pop()
        rows = Rows(slot, start, home.rows.per)
        return Passing(x, normed, others.pop() if others else None, rows, first, length)

    def _window(self, index: int) -> int | None:
        return self.config.window if self.config.layers[index].kind == "sliding" else None


class _PerLayerTable:
    """One small vector per row and layer, from the token and from its embedding.

    The reference scales the projection by hidden^-0.5 before the norm, and the sum by 2^-0.5. The
    first is the same as a larger eps; the second goes into the norm's weight and the table's scale.
    """

    def __init__(
        self, config: TargetConfig, take: Take, dtype: torch.dtype, pack: Pack, on_host: bool
    ) -> None:
        width = len(config.layers) * config.ple_dim
        table = take_table(take, "embed_tokens_per_layer.weight", (config.vocab_size, width))
        on_host = on_host and isinstance(table, Tensor) and table.is_cuda
        self._table = table.cpu().pin_memory() if isinstance(table, Tensor) and on_host else table
        named = ("per_layer_model_projection.weight", (width, config.hidden))
        context = take_matrix(take, named)
        self._context = laid_out(pack("ple_context", context))
        weight = take("per_layer_projection_norm.weight", (config.ple_dim,)).float()
        self._weight = weight * 0.5**0.5
        self._eps = config.eps * config.hidden
        self._scale: float = torch.tensor(config.ple_dim**0.5, dtype=dtype).item() * 0.5**0.5
        self._dtype = dtype

    def __call__(self, ids: Tensor, x: Tensor) -> Tensor:
        """[layers, R, ple_dim] T of ids [R] and their embeddings x [R, hidden] f32."""
        context = matmul(x.to(self._dtype), self._context)
        table = self._table
        if not isinstance(table, Tensor):  # only the rows that are asked for are unpacked
            table = _rows_of(table, ids, self._dtype)
            ids = torch.arange(len(ids), device=ids.device)
        return ple_rows(ids, table, context, self._weight, self._eps, self._scale, self._dtype)


def _rows_of(table: Lookup, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows `ids` of a packed table, looked up by torch, which reads no row that is not there."""
    if only_builds():  # no kernel of ours has run, so drafts have no meaning
        ids = torch.zeros_like(ids)
    return table.look_up(ids, dtype)
