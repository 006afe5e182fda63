"""Lets the depth controller run simulated devices and texts; prints a table against fixed depths.

`auto` is its tokens a second over 2,000 tokens, from nothing known, as a share of the best fixed
depth's and of plain decoding's: the mean of some seeds and the worst of them. A device is a cost
curve: what a round of 4 drafts takes, in rounds without drafts, straight between (`x2.5`) or with a
step after 4 rows (`step`). Each round's time varies by a tenth; one in a hundred takes 3 to 10
times as long. The controller learns from what happens; it is judged by what its depths are expected
to bring and take, as the fixed depths are, so that neither's luck counts.

    PYTHONPATH=daemon:. python -m tests.bench.controller --seeds 20
"""

import argparse
import random
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import NamedTuple

from gemmarunner.engine.controller import DepthController, Regime

MAX_DEPTH = 8
NOISE = 0.1
OUTLIERS = 0.01
SLOWEST_OUTLIER = 10.0


class Text(NamedTuple):
    """How likely drafts are to be right: each rate holds for `span` tokens, then the next does."""

    name: str
    rates: tuple[float, ...]
    span: int = 250

    def rate(self, place: int) -> float:
        """Acceptance at the token at index `place`."""
        return self.rates[place // self.span % len(self.rates)]


class Device(NamedTuple):
    """What a round takes at each depth, in rounds without drafts."""

    name: str
    cost: Callable[[int], float]


class Share(NamedTuple):
    """How the controller fared in one run."""

    of_best: float
    of_plain: float
    rounds: int
    parked: float  # share of the rounds without drafts


def linear(at_4: float) -> Device:
    """A curve without steps."""
    return Device(f"x{at_4}", lambda depth: 1 + (at_4 - 1) * depth / 4)


DEVICES = (
    linear(1.05),
    linear(1.2),
    linear(1.5),
    linear(2.0),
    linear(2.5),
    Device("step", lambda depth: 1 + 0.04 * depth + (0.8 if depth > 3 else 0.0)),
)
# Curves that no constant of the controller was chosen by: `row6`, a fixed price of drafting and a
# step at six rows; `draft`, steps of the drafter that cost more than the rows they add.
UNSEEN = (
    Device("row6", lambda depth: 1 + (0.15 + 0.02 * depth if depth else 0) + 0.5 * (depth > 4)),
    Device("draft", lambda depth: 1 + 0.08 * depth),
)
TEXTS = (
    *(Text(str(rate), (rate,)) for rate in (0.0, 0.3, 0.6, 0.9)),
    Text("0/.9", (0.0, 0.9)),
    Text(".9/.3/0", (0.9, 0.3, 0.0)),
)


class Run:
    """One text on one device."""

    def __init__(self, device: Device, text: Text, seed: int) -> None:
        self.device = device
        self.text = text
        self.luck = random.Random(seed)
        self.tokens = 0
        self.expected = 0.0  # tokens
        self.seconds = 0.0  # expected
        self.depths: list[int] = []

    def round(self, controller: DepthController) -> None:
        """One round at the depth the controller wants."""
        depth = controller.choose(1, {Regime.GREEDY: MAX_DEPTH})[Regime.GREEDY]
        outcomes = list(self.outcomes(depth))
        self.expected += tokens_of(self.text.rate(self.tokens), depth)
        self.seconds += 1e-3 * self.device.cost(depth)
        seconds = 1e-3 * self.device.cost(depth) * max(0.5, self.luck.gauss(1, NOISE))
        if self.luck.random() < OUTLIERS:
            seconds *= self.luck.uniform(3, SLOWEST_OUTLIER)
        controller.record(1, depth, [(Regime.GREEDY, outcomes)], seconds)
        self.tokens += 1 + sum(outcomes)
        self.depths.append(depth)

    def outcomes(self, depth: int) -> Iterator[bool]:
        """Whether each draft is right, up to the first that is not."""
        for index in range(depth):
            right = self.luck.random() < self.text.rate(self.tokens + index)
            yield right
            if not right:
                return


def tokens_of(rate: float, depth: int) -> float:
    """Expected tokens of a round."""
    return sum(rate**i for i in range(depth + 1))


def fixed_speed(device: Device, text: Text, depth: int, tokens: int) -> float:
    """Expected tokens a second at a fixed depth; each rate holds for as many tokens."""
    spans = [text.rates[i % len(text.rates)] for i in range(-(-tokens // text.span))]
    rounds = sum(text.span / tokens_of(rate, depth) for rate in spans)
    return text.span * len(spans) / (rounds * device.cost(depth) * 1e-3)


def share(
    device: Device,
    text: Text,
    seed: int,
    tokens: int = 2000,
    known: dict[str, object] | None = None,
) -> Share:
    """One run of a fresh controller, or of one that goes on from what is `known`."""
    controller = DepthController(MAX_DEPTH)
    if known is not None:
        controller.restore(known)
    run = Run(device, text, seed)
    while run.tokens < tokens:
        run.round(controller)
    speed = run.expected / run.seconds
    fixed = [fixed_speed(device, text, depth, tokens) for depth in range(MAX_DEPTH + 1)]
    parked = run.depths.count(0) / len(run.depths)
    return Share(speed / max(fixed), speed / fixed[0], len(run.depths), parked)


def learned(device: Device, text: Text) -> dict[str, object]:
    """What a controller leaves after a thousand tokens."""
    controller, run = DepthController(MAX_DEPTH), Run(device, text, seed=-1)
    while run.tokens < 1000:
        run.round(controller)
    return controller.state()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--known", action="store_true", help="go on from an earlier run's figures")
    options = parser.parse_args()
    print("device  text     of best: mean  worst   of plain: mean  worst   parked")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for device in (*DEVICES, *UNSEEN):
        for text in TEXTS:
            known = learned(device, text) if options.known else None
            runs = [share(device, text, seed, options.tokens, known) for seed in seeds]
            best, plain = [run.of_best for run in runs], [run.of_plain for run in runs]
            print(
                f"{device.name:7s} {text.name:8s} {fmean(best):14.3f} {min(best):6.3f} "
                f"{fmean(plain):16.3f} {min(plain):6.3f} {fmean(r.parked for r in runs):8.2f}"
            )


if __name__ == "__main__":
    main()
