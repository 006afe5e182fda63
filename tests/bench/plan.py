"""How long a plan takes: a newcomer among 1,000 resident pairs, of which it needs a few, or all.

`python -m tests.bench.plan [--pairs 1000]` prints one JSON line a case: the median of 50 plans.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace

from gemmad.core import ModelName
from gemmad.residency.budgets import PLACES, Held, Room, Situation, Way
from gemmad.residency.planner import plan

GPU = "cuda:0"
MIB = 1 << 20


def resident(index: int) -> Held:
    """A pair with all that it can give; one in three is busy."""
    return Held(
        ModelName.parse(f"m{index}"),
        index % 3 == 0,
        {GPU: (100 + index % 7) * MIB, "cpu": MIB, PLACES: 1},
        {GPU: 9 * MIB},
        {GPU: (index % 5) * MIB} if index % 5 else {},
        last_used=float(index * 37 % 1000),
        reload_s=1.0 + index % 4,
    )


def situation(pairs: int) -> Situation:
    """Nothing is free."""
    held = tuple(map(resident, range(pairs)))
    rooms = (Room(GPU, 1 << 40, 0), Room("cpu", 1 << 40, 1 << 39), Room(PLACES, 2 * pairs, pairs))
    return Situation(rooms, held, {"cpu": 300 * MIB}, now=2000.0)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    pairs = parser.parse_args().pairs
    here = situation(pairs)
    idle = sum(pair.rest[GPU] for pair in here.held if not pair.is_busy)
    every = sum(pair.rest[GPU] + pair.drafter[GPU] for pair in here.held)
    cases = {
        "a few MiB": 50 * MIB,
        "half of the idle": idle // 2,
        "nearly all": every - 100 * MIB,
        "too much": 1 << 39,
    }
    for case, nbytes in cases.items():
        ways = [Way({GPU: nbytes, "cpu": MIB, PLACES: 1}, rank) for rank in range(6)]
        took = []
        for _ in range(50):
            fresh = replace(here, columns={})  # every reading of a machine is a new situation
            began = time.perf_counter()
            found = plan(fresh, ways)
            took.append(time.perf_counter() - began)
        record = {"case": case, "steps": len(found.steps), "ms": statistics.median(took) * 1000}
        print(json.dumps(record))


if __name__ == "__main__":
    main()
