"""The whole making of nano, phase by phase, within one deadline."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from train.clock import Clock
from train.continuations import own_answers, packed_answers
from train.conversation import Item
from train.drafter import (
    Distilled,
    DrafterSettings,
    DrafterTrainer,
    Source,
    mixed_batch,
    new_drafter,
    train_drafter,
)
from train.evaluate import Reply, acceptance_report, ask, questions, skill_report, transcripts
from train.export import export_drafter, export_target
from train.generate import Generator
from train.model import Drafter, Target
from train.prompts import make_prompts
from train.report import Report, machine
from train.shapes import DrafterShape, TargetShape
from train.stream import RowStream, to_device
from train.target import TargetSettings, TargetTrainer, frozen_copy, train_target, validate
from train.workers import DataSettings, Workers, named

# seconds that the phases after one need, kept free while that one runs
AFTER_TARGET, AFTER_ANSWERS, AFTER_DRAFTER, AFTER_EVALUATION = 150.0, 115.0, 25.0, 8.0
ANSWER_SECONDS = 25.0
LONGEST_PROMPT = 900


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run was asked to do."""

    out: Path
    parts: Path
    data: DataSettings
    skills: str  # module with SKILLS, items and judge
    target_shape: TargetShape
    drafter_shape: DrafterShape
    target: TargetSettings
    drafter: DrafterSettings
    device: torch.device
    rows_kept: int
    validation: int
    prompts: int
    asked: dict[str, int]  # items a skill, by split
    generator_batch: int


@dataclass(slots=True)
class Asked:
    """Work that the processor does while the device trains."""

    prompts: "list[Future[list[tuple[int, ...]]]]"
    items: "dict[tuple[str, str], Future[list[Item]]]"
    validation: "Future[Any]"


def run(plan: Plan, clock: Clock) -> Report:
    """Train, export, evaluate and report; returns the report, whose files are under `plan.out`."""
    torch.manual_seed(plan.data.seed)
    report = Report(plan.out, plan.parts)
    report.add(seed=plan.data.seed, machine=machine(), phases=clock.phases, plan=_plain(plan))
    workers = Workers(plan.data)
    try:
        _run(plan, clock, report, workers)
    finally:
        workers.close()
        report.add(phases=clock.phases, seconds=round(clock.elapsed_s, 1))
    return report


def _plain(plan: Plan) -> dict[str, Any]:
    """Return the plan's settings as they fit in JSON, without machine paths."""
    hidden = ("out", "parts", "data")
    values = {k: v for k, v in asdict(plan).items() if k not in hidden}
    sizes = ("sampler", "conversations", "general_share", "workers")
    values["data"] = {name: getattr(plan.data, name) for name in sizes}
    plain: dict[str, Any] = _jsonable(values)
    return plain


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)


def _run(plan: Plan, clock: Clock, report: Report, workers: Workers) -> None:
    shards = workers.shards(0, plan.data.workers)  # the first rows start the compiler
    asked = _asked(plan, workers)
    shards += workers.shards(plan.data.workers)
    stream = RowStream(shards, plan.rows_kept, plan.device)
    model = Target(plan.target_shape).to(plan.device)
    report.add(parameters={"target": sum(p.numel() for p in model.parameters())})
    trainer = TargetTrainer(model, plan.target)
    with clock.phase("finding the fastest way to train"):
        compile_s = trainer.choose_way(stream.take(plan.target.rows))
    with clock.phase("training the target"):
        trained = train_target(trainer, stream, clock.budget_s(plan.target.seconds, AFTER_TARGET))
        trained.compile_seconds = round(compile_s, 1)
    for shard in shards:
        shard.cancel()
    report.add(data=_data(stream), target=asdict(trained))
    exact = frozen_copy(model, torch.float32)
    with clock.phase("exporting the target"):
        export_target(exact, plan.data.tokenizer, plan.out / "target")
        batch = to_device(asked.validation.result().rows, plan.device).at(slice(None))
        trained.validation = validate(exact, batch, torch.float32)
        report.add(target=asdict(trained))
        report.publish()
    none: list[Reply] = []
    replies = clock.attempt(
        "asking the target", lambda: _ask(plan, clock, exact, asked, report), none
    )
    drafter = _draft(plan, clock, report, model, stream, asked)
    nothing: dict[str, Any] = {}
    measured = clock.attempt(
        "measuring the drafter", lambda: acceptance_report(exact, drafter, replies), nothing
    )
    report.add(acceptance=measured, phases=clock.phases)
    report.publish()


def _asked(plan: Plan, workers: Workers) -> Asked:
    """Hand the workers what is needed after training, while the compiler keeps the device busy."""
    skills: Any = named(plan.skills + ":SKILLS")
    make_items = named(plan.skills + ":items")
    tokenizer, parts = str(plan.data.tokenizer / "tokenizer.json"), 8
    seed = plan.data.seed
    return Asked(
        prompts=[
            workers.submit(
                make_prompts,
                tokenizer,
                plan.data.sampler,
                f"{seed}/prompts/{part}",
                plan.prompts // parts,
                LONGEST_PROMPT,
            )
            for part in range(parts)
        ],
        items={
            (skill, split): workers.submit(make_items, skill, split, count, seed + 1)
            for split, count in plan.asked.items()
            for skill in skills
        },
        validation=workers.validation(plan.validation),
    )


def _data(stream: RowStream) -> dict[str, Any]:
    counts = asdict(stream.counts)
    tokens = counts["conversation_tokens"] + counts["general_tokens"]
    counts["general_share"] = round(counts["general_tokens"] / max(1, tokens), 4)
    counts["fill"] = round(tokens / max(1, counts["rows"] * 1024), 4)
    return counts


def _ask(plan: Plan, clock: Clock, exact: Target, asked: Asked, report: Report) -> list[Reply]:
    """Ask every split's questions, as far as the time allows, and report on them."""
    tokenizer = Tokenizer.from_file(str(plan.data.tokenizer / "tokenizer.json"))
    items = {key: future.result() for key, future in asked.items.items()}
    generator = Generator(exact, torch.float32, plan.generator_batch, plan.data.seed)
    judge: Callable[..., Any] = named(plan.skills + ":judge")
    limit = clock.budget_s(60.0, AFTER_ANSWERS) + clock.elapsed_s
    found: list[Reply] = []
    for split in plan.asked:  # most telling first, should time run short
        some = {key: value for key, value in items.items() if key[1] == split}
        found += ask(
            generator,
            tokenizer,
            questions(tokenizer, some),
            judge,
            lambda: clock.elapsed_s > limit,
        )
    report.add(evaluation=skill_report(found))
    report.add_samples(transcripts(found))
    return found


def _draft(
    plan: Plan, clock: Clock, report: Report, model: Target, stream: RowStream, asked: Asked
) -> Drafter:
    """Train, export and return the drafter, its weights rounded as exported."""
    frozen = frozen_copy(model, plan.drafter.dtype)
    with clock.phase("the target's own answers"):
        limit = clock.elapsed_s + clock.budget_s(ANSWER_SECONDS, AFTER_ANSWERS)
        prompts = [prompt for part in asked.prompts for prompt in part.result()]
        generator = Generator(frozen, plan.drafter.dtype, plan.generator_batch, plan.data.seed)
        documents = own_answers(generator, prompts, lambda: clock.elapsed_s > limit)
        own = to_device(packed_answers(documents, plan.drafter.length), plan.device)
    drafter = Drafter(plan.drafter_shape, plan.target_shape).to(plan.device)
    new_drafter(drafter, frozen)
    counts = {"target": model, "drafter": drafter}
    report.add(
        parameters={n: sum(p.numel() for p in m.parameters()) for n, m in counts.items()},
        own_answers=len(documents),
    )
    sources = [
        Source(stream.kept(), plan.drafter.length, plan.data.seed),
        Source(own, plan.drafter.length, plan.data.seed),
    ]
    trainer, distilled = DrafterTrainer(drafter, frozen, plan.drafter), Distilled()
    if plan.drafter.compiled:
        with clock.phase("compiling the drafter"):
            distilled.compiled = trainer.compile(mixed_batch(sources, plan.drafter.rows))
        distilled.compile_seconds = clock.phases["compiling the drafter"]
    with clock.phase("training the drafter"):
        seconds = clock.budget_s(plan.drafter.seconds, AFTER_DRAFTER)
        train_drafter(trainer, sources, seconds, distilled)
    report.add(drafter=asdict(distilled))
    drafter.load_state_dict(
        {
            n: t.bfloat16().to(t.dtype) if t.is_floating_point() else t
            for n, t in drafter.state_dict().items()
        }
    )
    with clock.phase("exporting the drafter"):
        export_drafter(drafter, model, plan.out / "drafter")
        report.publish()
    return drafter.requires_grad_(False)
