"""Trains the target on packed rows until its time is up."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from train.attention import Rope, ropes
from train.fastest import PLAIN, WAYS, Way, fastest_way, token_losses
from train.model import Target
from train.optim import Optimizer, rate_scale
from train.pack import ROW
from train.shapes import LayerType
from train.stream import Batch, RowStream

MUON_RATE, ADAM_RATE = 0.02, 4e-3
LOG_EVERY = 50
FEW_STEPS = 10  # steps between two looks at the device, so that the clock stays honest


@dataclass(frozen=True, slots=True)
class TargetSettings:
    """How long and how the target is trained; `steps` ends it early."""

    seconds: float
    rows: int
    steps: int
    dtype: torch.dtype
    compiled: bool


class Losses(NamedTuple):
    """Weighted loss of a batch and the plain means over its model turns and general English."""

    total: Tensor
    model_turns: Tensor
    general: Tensor


@dataclass(slots=True)
class Trained:
    """What training reports."""

    way: str = ""
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    epochs: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)


class TargetTrainer:
    """One target in training."""

    def __init__(self, model: Target, settings: TargetSettings) -> None:
        self.model, self.settings = model, settings
        self.device = model.model.embed_tokens.weight.device
        self.way = PLAIN
        self._losses = token_losses
        self._tables: dict[int, dict[LayerType, Rope]] = {}

    def tables(self, length: int) -> dict[LayerType, Rope]:
        """Return the rotary tables of rows of that length."""
        if length not in self._tables:
            positions = torch.arange(length, device=self.device)
            self._tables[length] = ropes(self.model.shape, positions)
        return self._tables[length]

    def losses(self, batch: Batch, noise: float = 1.0) -> Losses:
        """Return the losses of a batch; `noise` scales what is not the model's own turn."""
        masks = self.way.masks(batch.documents, self.model.shape.window)
        tables = self.tables(batch.tokens.shape[1])
        decoded = self.model.model(batch.tokens, tables, masks, self.settings.dtype)
        targets, weights = batch.tokens.roll(-1, 1), batch.weights.roll(-1, 1)
        weights[:, -1] = 0.0
        embedding = self.model.model.embed_tokens.weight
        each = self._losses(decoded.hidden, embedding, targets, self.model.shape.softcap)
        turns = (weights > 0.99).float()
        general = ((weights > 0.2) & (weights < 0.5)).float()
        scaled = torch.where(weights > 0.99, weights, weights * noise)
        return Losses(*(_mean(each, w) for w in (scaled, turns, general)))

    def use(self, way: Way) -> None:
        """Run in that way from now on."""
        self.way, self._losses = way, way.ready(token_losses)

    def choose_way(self, batch: Batch) -> float:
        """Settle on the fastest way that works; returns the seconds it took to find it."""
        begun = time.perf_counter()

        def attempt(way: Way) -> Tensor:
            self.use(way)
            loss = self.losses(batch).total
            loss.backward()  # type: ignore[no-untyped-call]
            return torch.stack((loss.detach(), gradient_norm(self.model)))

        self.use(fastest_way(self.model, attempt, WAYS if self.settings.compiled else (PLAIN,)))
        return time.perf_counter() - begun


def noise_scale(progress: float) -> float:
    """Return the share of their loss that prompts and general English keep at that time.

    Nearly all of their loss cannot be learnt (random values, 14 M parameters) and by the end it
    would be a hundred times the loss of the answers; so English comes first, and then fades.
    """
    return 1.0 - 0.92 * min(1.0, max(0.0, (progress - 0.25) / 0.35))


def gradient_norm(model: Target) -> Tensor:
    """Return the norm of all the gradients."""
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    whole: Tensor = torch.stack(norms).norm()
    return whole


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)


def train_target(trainer: TargetTrainer, stream: RowStream, seconds: float) -> Trained:
    """Train until `seconds` or the settings' steps have passed; returns what to report."""
    settings, trained = trainer.settings, Trained(way=trainer.way.name)
    optimizer = Optimizer(trainer.model, MUON_RATE, ADAM_RATE)
    begun, step, progress = time.perf_counter(), 0, 0.0
    while progress < 1.0 and step < settings.steps:
        losses = trainer.losses(stream.take(settings.rows), noise_scale(progress))
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimizer.step(rate_scale(progress, step))
        step += 1
        if step % FEW_STEPS == 0:
            losses.total.item()
        took = time.perf_counter() - begun
        progress = max(took / max(seconds, 1e-6), step / settings.steps)
        if step % LOG_EVERY == 0 or progress >= 1.0:
            trained.curve.append(_point(step, took, losses))
    trained.steps, trained.seconds = step, round(time.perf_counter() - begun, 1)
    trained.tokens = step * settings.rows * ROW
    trained.epochs = round(stream.epochs, 3)
    return trained


def _point(step: int, took: float, losses: Losses) -> dict[str, float]:
    """Return one point of the loss curve, printing it now and then."""
    values = {name: round(x.item(), 4) for name, x in losses._asdict().items()}
    point = {"step": step, "seconds": round(took, 1)} | values
    if step % (4 * LOG_EVERY) == 0:
        print(f"  {point}", flush=True)
    return point


@torch.no_grad()
def validate(frozen: Target, batch: Batch, dtype: torch.dtype, rows: int = 16) -> dict[str, float]:
    """Return the mean losses of a model over held-out rows, plainly computed `rows` at a time."""
    settings = TargetSettings(seconds=0, rows=rows, steps=0, dtype=dtype, compiled=False)
    trainer = TargetTrainer(frozen, settings)
    found = [
        [float(x) for x in trainer.losses(Batch(*(part[at : at + rows] for part in batch)))]
        for at in range(0, len(batch.tokens), rows)
    ]
    means = torch.tensor(found).nanmean(0).tolist()
    return {name: round(value, 4) for name, value in zip(Losses._fields, means, strict=True)}


def frozen_copy(model: Target, dtype: torch.dtype) -> Target:
    """Return an uncompiled copy with the weights rounded to bf16, as exported, held in `dtype`."""
    copy = Target(model.shape).to(model.model.embed_tokens.weight.device)
    copy.load_state_dict({n: t.bfloat16().float() for n, t in model.state_dict().items()})
    return copy.to(dtype).requires_grad_(False).eval()
