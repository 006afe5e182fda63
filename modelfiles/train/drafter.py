"""Trains the drafter to say what the frozen target would, several steps ahead."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from train.attention import ropes
from train.drafting import draft_losses, first_hidden, picked, read_rows, starts_at
from train.fastest import prepare_compiler
from train.model import Drafter, Target
from train.optim import Optimizer, rate_scale
from train.ordering import balanced_ordering, principal_embedding
from train.pack import HUNDREDTHS
from train.stream import Batch, DeviceRows

MUON_RATE, ADAM_RATE = 0.02, 2e-3
DEPTH = 6
LATER_WEIGHT = 0.85
CLUSTER_WEIGHT = 0.3
LOG_EVERY = 25
FEW_STEPS = 5
FEWEST_TURN_TOKENS = 48  # rows with fewer tokens of model turns are not worth a teacher's pass


@dataclass(frozen=True, slots=True)
class DrafterSettings:
    """How long and how the drafter is trained; `steps` ends it early."""

    seconds: float
    rows: int  # of each of the two kinds of text
    starts: int  # rounds begun in each row
    length: int
    steps: int
    dtype: torch.dtype
    compiled: bool


@dataclass(slots=True)
class Distilled:
    """What the drafter's training reports."""

    compiled: bool = False
    steps: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


class Source:
    """Rows on the device that hold enough tokens of model turns, drawn at random."""

    def __init__(self, rows: DeviceRows, length: int, seed: int) -> None:
        self._rows = DeviceRows(*(part.reshape(-1, length) for part in rows))
        turns = (self._rows.weights == HUNDREDTHS).sum(-1)
        self._useful: Tensor = (turns >= FEWEST_TURN_TOKENS).nonzero()[:, 0]
        self._random = torch.Generator(device=turns.device).manual_seed(seed)

    def __len__(self) -> int:
        return len(self._useful)

    def take(self, count: int) -> Batch:
        """Return `count` of the rows."""
        device = self._useful.device
        at = torch.randint(len(self._useful), (count,), generator=self._random, device=device)
        return self._rows.at(self._useful[at])


def new_drafter(drafter: Drafter, target: Target) -> None:
    """Start the drafter's head from the target's embedding: its clusters and main directions."""
    embedding = target.model.embed_tokens.weight.float()
    clusters = drafter.masked_embedding
    clusters.token_ordering.copy_(balanced_ordering(embedding, drafter.shape.clusters))
    head = principal_embedding(embedding, drafter.shape.hidden)
    with torch.no_grad():
        drafter.model.embed_tokens.weight.copy_(head)
        ordered = head[clusters.token_ordering]
        centres = ordered.view(drafter.shape.clusters, -1, drafter.shape.hidden)
        clusters.centroids.weight.copy_(centres.mean(1))


class DrafterTrainer:
    """One drafter in training against its frozen target."""

    def __init__(self, drafter: Drafter, target: Target, settings: DrafterSettings) -> None:
        self.drafter, self.target, self.settings = drafter, target, settings
        device = target.model.embed_tokens.weight.device
        self._tables = ropes(target.shape, torch.arange(settings.length, device=device))
        self._random = torch.Generator(device=device).manual_seed(1)
        ordering = drafter.masked_embedding.token_ordering
        cluster_of = torch.empty_like(ordering)
        size = len(ordering) // drafter.shape.clusters
        cluster_of[ordering] = torch.arange(len(ordering), device=device) // size
        one_hot = torch.nn.functional.one_hot(cluster_of, drafter.shape.clusters)
        self._membership = one_hot.to(settings.dtype)
        self._step: Callable[..., Any] = drafter
        self._losses: Callable[..., tuple[Tensor, Tensor]] = draft_losses

    def compile(self, batch: Batch) -> bool:
        """Compile the step and the losses and try them; returns whether they work."""
        try:
            prepare_compiler()
            self._step = torch.compile(self.drafter, dynamic=False)
            self._losses = torch.compile(draft_losses, dynamic=False)
            self.loss(batch)[0].backward()  # type: ignore[no-untyped-call]
        except Exception:  # whatever the compiler raises, the plain way can still train
            print("Compiling the drafter failed; it trains plainly:", flush=True)
            traceback.print_exc()
            self._step, self._losses = self.drafter, draft_losses
            return False
        finally:
            self.drafter.zero_grad(set_to_none=True)
        return True

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return (loss, mean divergence at each step [6]) of rounds begun at random places.

        Every step is fed the text's own token and the hidden state of the step before.
        """
        target, drafter = self.target, self.drafter
        reading = read_rows(target, batch.tokens, batch.documents, self._tables)
        places, valid = self._places(batch)
        starts = starts_at(target, reading, batch.documents, places)
        # the first step then looks like the later ones, and one compilation serves all
        hidden = first_hidden(reading, starts).requires_grad_()
        total, divergences = torch.zeros((), device=places.device), []
        for ahead in range(DEPTH):
            at = (places + ahead).clamp_max(batch.tokens.shape[1] - 1)
            embedded = target.model.embed(batch.tokens.gather(1, at), hidden.dtype)
            hidden, normed = self._step(
                embedded, hidden, starts.tables, starts.masks, starts.donors
            )
            divergence, coarse = self._losses(
                normed,
                drafter.model.embed_tokens.weight,
                drafter.masked_embedding.centroids.weight,
                picked(reading.decoded.hidden, at),
                target.model.embed_tokens.weight,
                self._membership,
                target.shape.softcap,
            )
            counted = valid[ahead] / valid[ahead].sum().clamp_min(1.0)
            each = (divergence + CLUSTER_WEIGHT * coarse) * counted
            total = total + LATER_WEIGHT**ahead * each.sum()
            divergences.append((divergence.detach() * counted).sum())
        return total, torch.stack(divergences)

    def _places(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return random starts [rows, starts] and which drafts from them lie in a model turn."""
        turn = (batch.weights > 0.99) & (batch.documents == batch.documents.roll(1, 1))
        turn[:, 0] = False
        ahead = [turn]  # ahead[j][p]: all of the tokens p .. p + j are of a model turn
        for distance in range(1, DEPTH):
            next_turn = turn.roll(-distance, 1)
            next_turn[:, -distance:] = False
            ahead.append(ahead[-1] & next_turn)
        can_start = turn.roll(-1, 1)
        can_start[:, -1] = can_start[:, 0] = False
        lots = (
            torch.rand(turn.shape, generator=self._random, device=turn.device) + can_start.float()
        )
        places = lots.topk(self.settings.starts, dim=1).indices
        allowed = can_start.gather(1, places)
        after = (places + 1).clamp_max(turn.shape[1] - 1)
        return places, [(run.gather(1, after) & allowed).float() for run in ahead]


def train_drafter(
    trainer: DrafterTrainer, sources: list[Source], seconds: float, distilled: Distilled
) -> None:
    """Train until `seconds` or the settings' steps have passed, writing into `distilled`."""
    settings = trainer.settings
    optimizer = Optimizer(trainer.drafter, MUON_RATE, ADAM_RATE)
    begun, step, progress = time.perf_counter(), 0, 0.0
    while progress < 1.0 and step < settings.steps:
        loss, divergences = trainer.loss(mixed_batch(sources, settings.rows))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(rate_scale(progress, step))
        step += 1
        if step % FEW_STEPS == 0:
            loss.item()
        took = time.perf_counter() - begun
        progress = max(took / max(seconds, 1e-6), step / settings.steps)
        if step % LOG_EVERY == 0 or progress >= 1.0:
            distilled.curve.append(_point(step, took, loss, divergences))
    distilled.steps, distilled.seconds = step, round(time.perf_counter() - begun, 1)


def mixed_batch(sources: list[Source], rows: int) -> Batch:
    """Return `rows` rows of each source, together."""
    parts = [source.take(rows) for source in sources]
    return Batch(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _point(step: int, took: float, loss: Tensor, divergences: Tensor) -> dict[str, Any]:
    each = [round(x, 4) for x in divergences.tolist()]
    point = {"step": step, "seconds": round(took, 1), "loss": round(loss.item(), 4), "kl": each}
    if step % (8 * LOG_EVERY) == 0:
        print(f"  {point}", flush=True)
    return point
