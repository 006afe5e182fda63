"""Files of liars by the hundred thousand: read or refused, in under 1 s and 64 MiB, every one."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gemmad.api.errors import Unsupported
from gemmad.inspection.inspector import inspect
from gemmad.wire import PairFiles
from tests.unit.formats import hostile_gguf
from tests.unit.formats.fuzz_worker import KINDS, NANO, WORST
from tests.unit.formats.hostile_limits import LARGEST

ROOT = Path(__file__).parents[3]
SEED = 20_261_124
ROUNDS = {"gguf": 100_000, "safetensors": 100_000, "texts": 50_000}
SLOWEST_S = 1.0
FEW = ("wide tokens", "a text in JSON")


def run(kind: str, rounds: int, directory: Path, seed: int = SEED) -> dict[str, Any]:
    """What the process that reads them says: it may grow by 64 MiB, and no error gets past it."""
    paths = (ROOT, ROOT / "daemon", ROOT / "modelfiles")
    what = (kind, str(seed), str(rounds), str(directory))
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.formats.fuzz_worker", *what],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    """Counts, lengths, types, offsets, nesting, texts: the formats' own error, or success."""
    found = run(kind, 400, tmp_path)

    assert found["read"] > 5
    assert found["refused"] > 100
    assert found["slowest_s"] < SLOWEST_S


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", KINDS)
async def test_many_mutated_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    """A quarter of a million in all; then the slowest once more in the process made for them."""
    found = run(kind, ROUNDS[kind], tmp_path)
    worst = sorted((tmp_path / "worst").iterdir())
    ends = [end for some in batches(worst) for end in await asyncio.gather(*map(seen, some))]
    print(kind, found, {end: ends.count(end) for end in set(ends)})

    assert found["read"] + found["refused"] == ROUNDS[kind]
    assert found["slowest_s"] < SLOWEST_S
    assert len(ends) == WORST
    assert set(ends) <= {"read", "refused"}  # none broke the reader, or met its limits


def batches(worst: list[Path]) -> list[list[Path]]:
    """Two at a time."""
    return [worst[at : at + 2] for at in range(0, len(worst), 2)]


async def seen(directory: Path) -> str:
    """What the disposable process made of the hostile file among sound ones."""
    [name] = os.listdir(directory)
    hostile = directory / name
    sound = {} if hostile.suffix == ".gguf" else {n: str(NANO / n) for n in os.listdir(NANO)}
    try:
        await inspect(PairFiles(target=sound | {hostile.name: str(hostile)}))
    except Unsupported as error:
        return "broke" if "broke the reader" in error.message else "refused"
    return "read"


def run_one(directory: Path, name: str, data: bytes) -> dict[str, Any]:
    """A run of this one file."""
    given = directory / "given"
    given.mkdir(parents=True)
    (given / name).write_bytes(data)
    return run("one", 1, directory)


def test_a_run_can_fail(tmp_path: Path) -> None:
    """What is no format's own error ends it: here, that there is no file."""
    (tmp_path / "given").mkdir()

    with pytest.raises(AssertionError, match="not enough values"):
        run("one", 1, tmp_path)


@pytest.mark.parametrize("drafter", [False, True])
def test_the_seeds_are_sound(tmp_path: Path, drafter: bool) -> None:
    """A fuzzer that begins with rubbish proves nothing: unchanged, a target is read."""
    data = b"".join(field.data for field in hostile_gguf.sound(drafter=drafter))

    assert run_one(tmp_path, "model.gguf", data)["read"] == (0 if drafter else 1)


@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in LARGEST]
)
def test_the_most_that_limits_allow_is_cheap(tmp_path: Path, name: str) -> None:
    """Files as large as any that are read, made to cost: each under 1 s and 64 MiB as well."""
    found = run_one(tmp_path, *LARGEST[name]())

    assert found["slowest_s"] < SLOWEST_S, found


def test_mutations_are_of_many_kinds() -> None:
    """The same seed gives the same files; another gives others."""
    made = {
        hostile_gguf.mutated(hostile_gguf.sound(), random.Random(seed)) for seed in (1, 1, 2, 3)
    }

    assert len(made) == 3
