"""Sequences that decode together say what they say alone, whatever happens beside them."""

import random
from collections.abc import Sequence

import pytest
import torch

from gemmarunner.engine.eager import EagerBackend
from gemmarunner.engine.engine import CHUNK_BESIDE_ROUNDS, Engine
from gemmarunner.engine.events import EngineEvent, EngineRequest, Failed, Finished, Tokens
from gemmarunner.engine.kvcache import KVCache
from gemmarunner.engine.ports import RoundPlan, RoundResult
from gemmarunner.engine.request import DraftMode, Sampling
from tests.fakes.engine_runs import GREEDY, NO_EOS, answer_of, ask, eager_engine, run_all, tiny_pair
from tests.fakes.table_models import TableDrafter, TableTarget, random_table
from tests.fakes.tiny_models import VOCAB as TINY_VOCAB

VOCAB = 12
TABLE = random_table(VOCAB)
DRAFTER = TableDrafter(TABLE + random_table(VOCAB, seed=3))
SAMPLINGS = (GREEDY, Sampling(seed=5), Sampling(seed=6, repeat_penalty=1.3, top_k=0))


class CountingBackend(EagerBackend):
    """Notes what it is asked for, in order: `slot:rows` of a chunk, slots of a round."""

    def __init__(self, **options: object) -> None:
        super().__init__(TableTarget(TABLE), DRAFTER, **options)  # type: ignore[arg-type]
        self.asked: list[str] = []
        self.fail_rounds = False

    def prefill(self, slot: int, tokens: Sequence[int]) -> None:
        self.asked.append(f"{slot}:{len(tokens)}")
        super().prefill(slot, tokens)

    def run(self, plans: Sequence[RoundPlan]) -> RoundResult:
        self.asked.append("round " + ",".join(str(plan.slot) for plan in plans))
        if self.fail_rounds:
            raise torch.OutOfMemoryError("no memory")
        return super().run(plans)


def mixed_requests(count: int, vocab: int, longest: int, seed: int = 0) -> list[EngineRequest]:
    """Prompts of many lengths, greedy, sampled and penalised, at all kinds of depth."""
    chance = random.Random(seed)
    modes: tuple[DraftMode, ...] = ("auto", "off", 1, 3, 8)
    return [
        EngineRequest(
            id,
            [chance.randrange(vocab) for _ in range(chance.randint(1, longest))],
            SAMPLINGS[id % 3],
            modes[chance.randrange(5)],
            chance.randint(1, 25),
        )
        for id in range(count)
    ]


def alone(engine: Engine, request: EngineRequest) -> list[int]:
    return ask(engine, request.tokens, request.sampling, "off", request.max_tokens).tokens


def run_joining(
    engine: Engine, requests: list[EngineRequest], cancels: set[int]
) -> list[EngineEvent]:
    """Requests come one a step or two; each in `cancels` is cancelled some steps later."""
    events: list[EngineEvent] = []
    for request in requests:
        engine.add(request)
        events += engine.step()
        if request.id - 2 in cancels:
            engine.cancel(request.id - 2)
        if request.id % 2:
            events += engine.step()
    return events + run_all(engine)


@pytest.mark.parametrize("slots", [1, 2, 3, 4])
def test_texts_do_not_depend_on_neighbours_joins_leaves_and_cancels(slots: int):
    """Twenty requests through 1 to 4 slots, every fifth cancelled, kept prompts used again."""
    requests = mixed_requests(20, VOCAB, longest=90)
    reference = eager_engine(TableTarget(TABLE), None, num_ctx=128, prefix_bytes=0)
    shared = eager_engine(
        TableTarget(TABLE, window=16), DRAFTER, num_ctx=128, slots=slots, max_rows=16
    )
    events = run_joining(shared, requests, cancels={id for id in range(20) if id % 5 == 0})
    for request in requests:
        answer, expected = answer_of(events, request.id), alone(reference, request)
        if answer.finished.reason == "cancel":
            expected = expected[: len(answer.tokens)]

        assert answer.tokens == expected


@pytest.mark.parametrize("shape", ["e2b", "12b"])
def test_texts_of_tiny_pairs_do_not_depend_on_neighbours(shape: str, tmp_path):
    """Real decoders, past their windows; greedy and sampled, all depths, four at a time."""
    target, drafter = tiny_pair(shape, tmp_path, torch.float32)
    requests = mixed_requests(6, TINY_VOCAB, longest=40, seed=1)
    reference = eager_engine(target, None, num_ctx=128, max_rows=16, prefix_bytes=0)
    shared = eager_engine(target, drafter, num_ctx=128, slots=4, max_rows=16)
    events = run_joining(shared, requests, cancels=set())

    for request in requests:
        assert answer_of(events, request.id).tokens == alone(reference, request)


def test_decoding_sequences_wait_for_one_small_chunk_at_most():
    """Rounds and chunks take turns while a long prompt is read; alone, chunks are large."""
    backend = CountingBackend(num_ctx=4096, slots=2, max_rows=1024, max_depth=1)
    engine = Engine(backend, eos_ids=NO_EOS)
    engine.add(EngineRequest(1, [1, 2], GREEDY, "off"))
    engine.step()
    engine.add(EngineRequest(2, [3] * 2000, GREEDY, "off"))
    for _ in range(5):
        engine.step()

    chunk = f"1:{CHUNK_BESIDE_ROUNDS}"
    assert backend.asked[:6] == ["0:2", chunk, "round 0", chunk, "round 0", chunk]
    alone = CountingBackend(num_ctx=4096, max_rows=1024)
    ask(Engine(alone, eos_ids=NO_EOS), [3] * 2000, max_tokens=1)
    assert alone.asked == ["0:1024", "0:976"]


def test_short_prompt_is_not_stuck_behind_a_long_one():
    """Prompts are read chunk by chunk in turn."""
    backend = CountingBackend(num_ctx=4096, slots=2, max_rows=16)
    engine = Engine(backend, eos_ids=NO_EOS)
    engine.add(EngineRequest(1, [3] * 1000, GREEDY, max_tokens=1))
    engine.add(EngineRequest(2, [4] * 10, GREEDY, max_tokens=1))
    events = run_all(engine)

    assert backend.asked[:3] == ["0:16", "1:10", "0:16"]
    assert [e.id for e in events if isinstance(e, Finished)] == [2, 1]


def test_cancel_while_a_round_is_in_flight_drops_what_it_brings():
    """The step that lands the round adds nothing to the text, and the neighbour's goes on."""
    engine = eager_engine(TableTarget(TABLE), DRAFTER, num_ctx=64, slots=2)
    for id in (1, 2):
        engine.add(EngineRequest(id, [id], GREEDY, 3))
    for _ in range(4):
        engine.step()
    engine.cancel(1)
    events = engine.step()

    assert [type(e) for e in events if e.id == 1] == [Finished]
    assert any(isinstance(e, Tokens) for e in events if e.id == 2)


def test_failed_round_fails_its_sequences_and_no_others():
    """A prompt that is being read beside it is answered, and the slots serve again."""
    backend = CountingBackend(num_ctx=256, slots=3, max_rows=16)
    engine = Engine(backend, eos_ids=NO_EOS)
    for id, prompt in ((1, [1]), (2, [2]), (3, [3] * 60)):
        engine.add(EngineRequest(id, prompt, GREEDY, max_tokens=8))
    events = [*engine.step(), *engine.step(), *engine.step()]
    backend.fail_rounds = True
    events += engine.step()
    backend.fail_rounds = False
    events += run_all(engine)

    assert [e.id for e in events if isinstance(e, Failed)] == [1, 2]
    reference = eager_engine(TableTarget(TABLE), None, num_ctx=256)
    assert answer_of(events, 3).tokens == ask(reference, [3] * 60, max_tokens=8).tokens
    assert len(ask(engine, [1], max_tokens=5).tokens) == 5


class TogetherTarget(TableTarget):
    """Notes how many sequences each pass verified."""

    def __init__(self) -> None:
        super().__init__(TABLE)
        self.together: list[int] = []

    def forward_many(self, tokens: Sequence[torch.Tensor], caches: Sequence[KVCache]):
        self.together.append(len(caches))
        return super().forward_many(tokens, caches)


@pytest.mark.parametrize("deterministic", [False, True])
def test_sequences_are_verified_in_one_pass(deterministic: bool):
    """But where results depend on the number of rows and must not: there each has its own."""
    target = TogetherTarget()
    if deterministic:
        target.dtype = torch.bfloat16
    engine = eager_engine(target, DRAFTER, num_ctx=64, slots=4, deterministic=deterministic)
    for id in range(4):
        engine.add(EngineRequest(id, [id + 1], GREEDY, 3, max_tokens=12))
    run_all(engine)

    assert (4 in target.together) is not deterministic
    assert not (deterministic and target.together)


def test_depths_keep_to_what_the_backend_permits_a_batch():
    """Asked for more, or choosing: so what is counted as drafted was drafted; probes go on."""
    backend = CountingBackend(num_ctx=4096, slots=2)
    depths: list[int] = []
    run = backend.run

    def noted(plans: Sequence[RoundPlan]) -> RoundResult:
        depths.extend(plan.depth for plan in plans)
        return run(plans)

    backend.run, backend.depth_limit = noted, lambda batch: 8 // batch  # type: ignore[method-assign]
    engine = Engine(backend, eos_ids=NO_EOS)
    engine.add(EngineRequest(1, [1], GREEDY, "auto", 600))
    engine.add(EngineRequest(2, [2], GREEDY, 8, 600))
    events = run_all(engine)
    stats = answer_of(events, 2).finished.draft

    assert max(depths) <= 8
    assert stats.drafted <= 4 * stats.rounds + 4 * depths.count(8)
    assert {1, 2, 3, 4} <= set(depths)


def test_deterministic_runs_one_width_whatever_is_drafted():
    """bf16 rows may depend on their number; then every verification has nine, to the last token."""
    target = TableTarget(TABLE)
    target.dtype = torch.bfloat16  # token ids below 256 survive it
    options = {"num_ctx": 40, "deterministic": True}
    texts = []
    for depth in (0, 1, 3, 8):
        target.rows_run.clear()
        engine = eager_engine(target, DRAFTER, **options)
        texts.append(ask(engine, [1, 2], draft=depth).tokens)
        assert set(target.rows_run[1:]) == {9}

    assert len(texts[0]) == 38
    assert all(text == texts[0] for text in texts)


def test_row_invariance_is_promised_for_float32_on_x86_or_when_made_so():
    """Elsewhere only the deterministic mode promises it."""
    half = TableTarget(TABLE)
    half.dtype = torch.bfloat16

    assert not EagerBackend(half, DRAFTER, num_ctx=16).row_invariant
    assert EagerBackend(half, DRAFTER, num_ctx=16, deterministic=True).row_invariant
    assert not EagerBackend(TableTarget(TABLE), DRAFTER, num_ctx=16, max_depth=9).row_invariant


def test_warm_runs_and_leaves_nothing():
    """Also where the context is hardly longer than the deepest round."""
    for num_ctx in (2, 12, 64):
        backend = EagerBackend(TableTarget(TABLE), DRAFTER, num_ctx=num_ctx)
        reports: list[tuple[int, int]] = []
        backend.warm(lambda done, total, reports=reports: reports.append((done, total)))

        assert backend.length(0) == 0
        assert reports == [(1, 1)]
