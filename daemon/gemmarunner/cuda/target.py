"""A Gemma 4 target on fused operators: steps of several sequences, and prompts of one.

Computes what `models.target.Target` computes. T is the model's dtype, R the rows of a step.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gemmarunner.cuda.layer import Layer, LayerPlan, Pack, as_it_is, laid_out, layer_take
from gemmarunner.cuda.slots import Slots
from gemmarunner.kernels.attention import attend, chunk_for
from gemmarunner.kernels.embed import embed, ple_rows
from gemmarunner.kernels.launch import only_builds
from gemmarunner.kernels.linear import head, matmul
from gemmarunner.kernels.norm import norm
from gemmarunner.kernels.prompt_attention import attend_prompt, store_prompt
from gemmarunner.kernels.rows import Rows
from gemmarunner.models.config import TargetConfig
from gemmarunner.models.weights import Lookup, Take, take_head, take_matrix, take_table


class Tail(NamedTuple):
    """A prompt's last row, halfway: where rows nobody asked for need not go on."""

    x: Tensor  # [1, hidden] f32, the residual stream before layer `layer`
    normed: Tensor  # [1, hidden] T
    ple: Tensor | None  # [layers, 1, ple_dim] T
    layer: int
    rows: Rows  # the one row


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
    ) -> None:
        """`pack`: how matrices are kept; `ple_on_host`: the per-layer table in pinned memory."""
        self.config = config
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
        self._layers = [
            Layer(
                LayerPlan(
                    layer,
                    config.hidden,
                    config.heads,
                    config.eps,
                    dtype,
                    owns_kv=layer.donor is None,
                    ple_dim=config.ple_dim,
                    moe=config.moe,
                ),
                layer_take(take, index),
                pack,
            )
            for index, layer in enumerate(config.layers)
        ]
        final = take("norm.weight", (config.hidden,)).float()
        self._norms = [layer.input_norm for layer in self._layers] + [final]
        suppressed = config.suppress_tokens
        self.suppressed = torch.tensor(suppressed, device=device) if suppressed else None

    @torch.inference_mode()
    def step(self, ids: Tensor, rows: Rows, slots: Slots) -> Tensor:
        """Final hidden rows [R, hidden] T of tokens `ids` [R] int64; their K/V are in `slots`.

        Nothing here waits for the device or depends on what the tensors hold.
        """
        x, ple = self._embed(ids)
        normed = norm(x, self._norms[0], self.config.eps, self.dtype)
        return self._run(0, x, normed, ple, rows, slots)

    @torch.inference_mode()
    def prompt(self, ids: Tensor, slots: Slots, slot: int) -> Tail:
        """Reads `ids` [N] int64 into `slot` from its length on; `finish` gives the last row.

        Rows but the last stop once the last layer with keys of its own has them.
        """
        start, count = slots.length(slot), ids.shape[0]
        slots.write_ahead(slot, count)
        rows = self._rows(slot, start, count)
        x, ple = self._embed(ids)
        normed = norm(x, self._norms[0], self.config.eps, self.dtype)
        last = self.config.first_shared - 1
        for index in range(last):
            layer, cache = self._layers[index], slots.cache(index)
            q, new = layer.heads(normed, rows)
            attended = attend_prompt(q, new, cache, slot, start, self._window(index))
            store_prompt(new, cache, slot, start)
            after = self._norms[index + 1]
            x, (normed,) = layer.finish(x, attended, _of_layer(ple, index), after)
        _, new = self._layers[last].heads(normed, rows)
        store_prompt(new, slots.cache(last), slot, start)
        slots.advance(slot, count)
        ple = None if ple is None else ple[:, -1:].contiguous()
        one = self._rows(slot, start + count - 1, 1)
        return Tail(x[-1:].contiguous(), normed[-1:].contiguous(), ple, last, one)

    @torch.inference_mode()
    def finish(self, tail: Tail, slots: Slots) -> Tensor:
        """The final hidden row [1, hidden] T of a prompt's last token."""
        return self._run(tail.layer, tail.x, tail.normed, tail.ple, tail.rows, slots)

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

    def _run(
        self, begin: int, x: Tensor, normed: Tensor, ple: Tensor | None, rows: Rows, slots: Slots
    ) -> Tensor:
        """A step's rows through the layers from `begin` on, and the final norm."""
        for index in range(begin, len(self._layers)):
            layer, donor = self._layers[index], self.config.layers[index].donor
            cache = slots.cache(index if donor is None else donor)
            q = layer.queries(normed, rows, cache if donor is None else None)
            attended = attend(
                q, cache, rows, window=self._window(index), lag=0, chunk=chunk_for(cache.shape[3])
            )
            after = self._norms[index + 1]
            x, (normed,) = layer.finish(x, attended, _of_layer(ple, index), after)
        return normed

    def _rows(self, slot: int, start: int, per: int) -> Rows:
        def number(value: int) -> Tensor:
            return torch.full((1,), value, dtype=torch.int32, device=self.device)

        return Rows(number(slot), number(start), per)

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


def _of_layer(ple: Tensor | None, index: int) -> Tensor | None:
    return None if ple is None else ple[index]
