"""Requests wait, share, stop, are cancelled and fail without harm to one another."""

import threading

import pytest
import torch

from gemmad.api.errors import BadRequest, PromptTooLong
from gemmarunner.engine.engine import Engine
from gemmarunner.engine.events import EngineRequest, Failed, Finished, Tokens
from gemmarunner.engine.propose import DraftKind
from gemmarunner.engine.request import Sampling
from tests.fakes.engine_runs import GREEDY, NO_EOS, answer_of, ask, eager_engine, run_all
from tests.fakes.table_models import ScriptDrafter, TableDrafter, TableTarget, random_table

VOCAB = 12
TABLE = random_table(VOCAB)


def engine(num_ctx: int = 64, drafter: object = None, **options: object) -> Engine:
    drafter = drafter or TableDrafter(TABLE + random_table(VOCAB, seed=3))
    options.setdefault("eos_ids", NO_EOS)
    return eager_engine(TableTarget(TABLE), drafter, num_ctx=num_ctx, **options)


def request(id: int, prompt: list[int], tokens: int | None = 10, **fields: object) -> EngineRequest:
    return EngineRequest(id, prompt, fields.pop("sampling", GREEDY), max_tokens=tokens, **fields)


def test_sequences_in_two_slots_give_the_texts_they_give_alone():
    """Interleaved round by round, greedy and sampled."""
    requests = [
        request(1, [1, 2], 20),
        request(2, [3], 15, sampling=Sampling(seed=4)),
        request(3, [5, 6, 7], 12),
    ]
    alone = [ask(engine(), r.tokens, r.sampling, "off", r.max_tokens).tokens for r in requests]
    shared = engine(slots=2)
    for each in requests:
        shared.add(each)
    events = run_all(shared)

    assert [answer_of(events, r.id).tokens for r in requests] == alone
    order = [event.id for event in events[:9]]
    assert order == [1, 1, 2, 1, 2, 1, 2, 1, 2]  # the second prompt is read beside a round


def test_requests_are_served_first_come_first_served():
    """With one slot the second starts after the first has ended."""
    one = engine()
    for id in (5, 3, 4):
        one.add(request(id, [id]))
    ended = [event.id for event in run_all(one) if isinstance(event, Finished)]

    assert ended == [5, 3, 4]


def test_cancel_ends_a_running_request_before_its_next_round():
    """No further token; the one behind it starts in the same step."""
    one = engine()
    one.add(request(1, [1], None))
    one.add(request(2, [2]))
    before = [*one.step(), *one.step()]
    one.cancel(1)
    events = one.step()

    assert all(isinstance(event, Tokens) for event in before)
    assert isinstance(events[0], Finished)
    assert (events[0].id, events[0].reason) == (1, "cancel")
    assert events[0].eval_tokens == sum(len(event.tokens) for event in before)
    assert {event.id for event in events[1:]} == {2}


def test_cancel_during_prefill_stops_it_within_one_chunk():
    """A prompt of ten chunks is read to the third."""
    target = TableTarget(TABLE)
    one = eager_engine(target, None, num_ctx=64, eos_ids=NO_EOS, max_rows=4)
    one.add(request(1, [1] * 40))
    for _ in range(3):
        one.step()
    one.cancel(1)
    (finished,) = one.step()

    assert finished.reason == "cancel"
    assert finished.eval_tokens == 0
    assert target.rows_run == [4, 4, 4]


def test_cancel_of_a_waiting_request_leaves_the_others_in_order():
    """It is answered though it never ran; an unknown id is nobody's business."""
    one = engine()
    for id in (1, 2, 3):
        one.add(request(id, [id]))
    one.step()
    one.cancel(2)
    one.cancel(99)
    ended = [(e.id, e.reason) for e in run_all(one) if isinstance(e, Finished)]

    assert ended == [(2, "cancel"), (1, "length"), (3, "length")]


def test_cancel_from_another_thread_is_obeyed():
    """The edge cancels while the engine's thread is in a step."""
    one = engine(num_ctx=4000)
    one.add(request(1, [1], None))
    events = one.step()
    thread = threading.Thread(target=one.cancel, args=(1,))
    thread.start()
    thread.join()

    assert answer_of([*events, *one.step()], 1).finished.reason == "cancel"


@pytest.mark.parametrize("tokens", [1, 2, 7])
@pytest.mark.parametrize("draft", ["off", 8, "auto"])
def test_exactly_num_predict_tokens_come(tokens: int, draft: str | int):
    """However deep the drafts were."""
    answer = ask(engine(), [1, 2], Sampling(temperature=0, num_predict=tokens), draft)

    assert len(answer.tokens) == tokens
    assert answer.finished.reason == "length"
    assert answer.finished.eval_tokens == tokens


def test_no_tokens_are_made_when_none_are_wanted():
    """num_predict 0 is answered without running the model."""
    answer = ask(engine(), [1, 2], max_tokens=0)

    assert answer.tokens == []
    assert answer.finished.reason == "length"


@pytest.mark.parametrize("draft", ["off", 8])
def test_text_ends_where_the_context_does(draft: str | int):
    """Prompt and answer fill it to the last token."""
    answer = ask(engine(num_ctx=16), [1, 2, 3], draft=draft)

    assert len(answer.tokens) == 13
    assert answer.finished.reason == "length"


def test_prompt_that_leaves_no_room_is_refused_with_numbers():
    """A prompt of the whole context is one too long."""
    one = engine(num_ctx=16)
    with pytest.raises(PromptTooLong, match=r"16 tokens.* holds 16"):
        one.add(request(1, [1] * 16))
    one.add(request(2, [1] * 15))

    assert len(answer_of(run_all(one), 2).tokens) == 1


@pytest.mark.parametrize("prompt", [[], [VOCAB], [-1]])
def test_prompt_that_is_no_text_is_refused(prompt: list[int]):
    """Before it can disturb anyone."""
    one = engine()
    with pytest.raises(BadRequest):
        one.add(request(1, prompt))

    assert not one.has_work


@pytest.mark.parametrize("draft", ["off", 4, 8])
def test_end_of_sequence_inside_accepted_drafts_ends_the_text(draft: str | int):
    """It is not part of the text, and drafts after it are not counted."""
    plain = ask(engine(), [1, 2], max_tokens=30).tokens
    eos = plain[7]
    expected = plain[: plain.index(eos)]
    script = ScriptDrafter([1, 2, *plain], VOCAB, right=1.0)
    answer = ask(engine(drafter=script, eos_ids=frozenset({eos})), [1, 2], draft=draft)
    stats = answer.finished.draft

    assert answer.tokens == expected
    assert answer.finished.reason == "stop"
    assert stats.accepted == stats.drafted
    assert stats.rounds * stats.tokens_per_round == pytest.approx(len(expected), abs=1e-3)


def test_figures_of_a_request_add_up():
    """At a fixed depth with a perfect drafter: 1 + 4 rounds of 5 tokens, all accepted."""
    plain = ask(engine(), [1, 2], max_tokens=21).tokens
    script = ScriptDrafter([1, 2, *plain], VOCAB, right=1.0)
    finished = ask(engine(drafter=script), [1, 2], draft=4, max_tokens=21).finished
    stats = finished.draft

    assert (stats.rounds, stats.drafted, stats.accepted) == (4, 16, 16)
    assert (stats.depth, stats.tokens_per_round) == (4, 5.0)
    assert stats.per_position == (1.0, 1.0, 1.0, 1.0)
    assert (finished.prompt_tokens, finished.eval_tokens) == (2, 21)
    assert finished.prompt_ns > 0
    assert finished.eval_ns > 0


def test_draft_off_drafts_nothing_and_a_depth_is_kept_to():
    """Requests overrule the controller; a depth beyond the maximum is the maximum."""
    drafter = TableDrafter(TABLE)
    off = ask(engine(drafter=drafter), [1], draft="off", max_tokens=20).finished.draft
    steps = drafter.steps
    deep = ask(engine(drafter=drafter, max_depth=3), [1], draft=50, max_tokens=21).finished.draft

    assert (off.depth, off.drafted, steps) == (0, 0, 0)
    assert deep.drafted == 3 * deep.rounds


def test_failure_of_one_request_leaves_the_other_alone():
    """The model cannot read one prompt; the other's text is what it is alone."""
    target = TableTarget(TABLE)
    target.fail_on = 11
    two = eager_engine(target, None, num_ctx=64, slots=2, eos_ids=frozenset({11}))
    expected = ask(engine(eos_ids=frozenset({11})), [1, 2], max_tokens=10).tokens
    two.add(request(1, [1, 2]))
    two.add(request(2, [3, 11]))
    events = run_all(two)
    failed = [event for event in events if isinstance(event, Failed)]

    assert [event.id for event in failed] == [2]
    assert "breaks the model" in str(failed[0].error)
    assert answer_of(events, 1).tokens == expected
    assert ask(two, [1, 2], max_tokens=10).tokens == expected


def test_next_turn_reads_only_what_is_new():
    """The prompt goes on where the last text ended; the answer is that of a fresh engine."""
    target = TableTarget(TABLE, window=8)
    warm = eager_engine(target, None, num_ctx=64, eos_ids=NO_EOS)
    first = ask(warm, [1, 2, 3, 4], max_tokens=6).tokens
    prompt = [1, 2, 3, 4, *first, 7, 8]
    target.rows_run.clear()
    second = ask(warm, prompt, max_tokens=6).tokens

    assert second == ask(engine(), prompt, max_tokens=6).tokens
    assert target.rows_run[0] == 3  # the last token of the answer was never run


def test_prefix_the_sliding_layers_have_left_is_read_again():
    """The window has moved on by 300 tokens; the common start is of no use."""
    target = TableTarget(TABLE, window=4)
    warm = eager_engine(target, None, num_ctx=512, eos_ids=NO_EOS, max_rows=10)
    ask(warm, [1, 2, 3], max_tokens=300)
    target.rows_run.clear()
    answer = ask(warm, [1, 2, 3, 9], max_tokens=6).tokens

    assert answer == ask(engine(), [1, 2, 3, 9], max_tokens=6).tokens
    assert target.rows_run[0] == 4


def test_request_takes_the_slot_that_holds_its_beginning():
    """Two conversations in turn each find their own cache."""
    target = TableTarget(TABLE, window=16)
    two = eager_engine(target, None, num_ctx=64, slots=2, eos_ids=NO_EOS)
    for id, start in ((1, [1, 1, 1, 1]), (2, [2, 2, 2, 2])):
        two.add(request(id, start, 3))
    run_all(two)
    target.rows_run.clear()
    ask(two, [2, 2, 2, 2, 5], max_tokens=1)
    ask(two, [1, 1, 1, 1, 5], max_tokens=1)

    assert target.rows_run == [1, 1]


def test_what_was_learned_passes_to_the_next_engine():
    """And a damaged file of it costs the figures, not the start."""
    first = engine(drafter=TableDrafter(TABLE), num_ctx=400)
    ask(first, [1], max_tokens=300)
    state = first.depth_state()

    assert engine(depth_state=state).depth_state() == state
    assert engine(depth_state={"version": "?"}).depth_state() != state


def test_kv_bytes_are_those_of_all_slots():
    """Two layers of 64 float32 keys and values each; a drafter is not needed."""
    alone = eager_engine(TableTarget(TABLE), None, num_ctx=8, slots=3)

    assert alone.kv_bytes == 3 * 2 * 2 * 64 * 4
    assert len(ask(alone, [1], draft=5, max_tokens=3).tokens) == 3


@pytest.mark.parametrize("kind", DraftKind)
def test_drafter_that_can_name_few_tokens_is_as_good(kind: DraftKind):
    """A centroid head scores some ids in an order of its own."""
    few = TableDrafter(TABLE, ids=[9, 3, 4, 1, 7])
    answer = ask(engine(drafter=few, kind=kind), [1, 2], draft=4, max_tokens=20)

    assert answer.tokens == ask(engine(), [1, 2], draft="off", max_tokens=20).tokens
    assert torch.tensor(answer.finished.draft.per_position).max() > 0
