"""The benchmark's plan is fair and its figures are what their names say."""

from collections import Counter

import pytest

from gemmacli.benchmark import Sample, Trial, differing, drafting, plan, report
from gemmacli.records import Draft


def draft(rounds: int, per_position: tuple[float, ...], tokens_per_round: float) -> Draft:
    return Draft(4, rounds, 10, 7, per_position, tokens_per_round)


def sample(
    repeat: int, prompt: int, mode: str, *, seconds: float, text: str = "same", tokens: int = 100
) -> Sample:
    return Sample(Trial(repeat, prompt, mode), text, tokens, seconds, None)


def test_the_plan_has_every_prompt_in_both_modes_in_turn() -> None:
    """Each mode goes first equally often, and a pair is never torn apart."""
    trials = plan(4, 2, "auto")
    firsts = Counter(trial.draft for trial in trials[::2])

    assert firsts == {"off": 4, "auto": 4}
    for first, second in zip(trials[::2], trials[1::2], strict=True):
        assert first[:2] == second[:2]
        assert {first.draft, second.draft} == {"off", "auto"}


def test_the_ratio_is_the_median_over_repeats() -> None:
    """One repeat on a busy machine does not decide."""
    samples = []
    for repeat, seconds in enumerate([0.5, 0.4, 2.0]):
        samples += [
            sample(repeat, 0, "off", seconds=1.0),
            sample(repeat, 0, "auto", seconds=seconds),
        ]
    made = report("nano", ["p"], samples, draft="auto", num_predict=8)

    assert made.ratios == pytest.approx((2.0, 2.5, 0.5))
    assert made.ratio == pytest.approx(2.0)
    assert made.identical
    assert made.plain.tokens_per_second == pytest.approx(100.0)
    assert made.drafted.tokens == 300


def test_long_answers_weigh_more_than_short_ones() -> None:
    """Rates are tokens over seconds summed, not a mean of rates."""
    samples = [
        sample(0, 0, "off", seconds=1.0, tokens=10),
        sample(0, 1, "off", seconds=1.0, tokens=90),
        sample(0, 0, "auto", seconds=1.0, tokens=100),
    ]
    made = report("nano", ["p", "q"], samples, draft="auto", num_predict=8)

    assert made.plain.tokens_per_second == pytest.approx(50.0)
    assert made.ratio == pytest.approx(2.0)


def test_one_other_byte_in_one_repeat_is_found() -> None:
    """The prompt is named."""
    samples = [
        sample(repeat, 0, mode, seconds=1.0) for repeat in (0, 1) for mode in ("off", "auto")
    ]
    samples += [sample(0, 1, "off", seconds=1.0), sample(1, 1, "auto", seconds=1.0, text="samé")]
    made = report("nano", ["p", "q"], samples, draft="auto", num_predict=8)

    assert differing(samples) == [1]
    assert made.differing == ("q",)
    assert not made.identical


def test_positions_are_weighted_by_the_rounds_that_reached_them() -> None:
    """9 of 10 and 1 of 2 rounds are 10 of 12; only accepted rounds go on."""
    made = drafting([draft(10, (0.9, 2 / 3), 3.0), draft(2, (0.5,), 1.5), None])

    assert made.per_position == pytest.approx((10 / 12, 6 / 9))
    assert made.tokens_per_round == pytest.approx((30 + 3) / 12)
    assert (made.drafted, made.accepted, made.rounds) == (20, 14, 12)


def test_nothing_measured_is_zero_and_not_a_crash() -> None:
    """A model that stops at once gives no rate."""
    made = report(
        "nano", ["p"], [sample(0, 0, "off", seconds=0.0, tokens=0)], draft=4, num_predict=1
    )

    assert (made.ratio, made.plain.tokens_per_second) == (0.0, 0.0)
    assert made.drafting.per_position == ()
