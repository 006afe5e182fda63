"""The process that a fuzz run happens in: it may grow by 64 MiB, and says what was slow.

`python -m tests.unit.formats.fuzz_worker KIND SEED ROUNDS DIRECTORY` writes the worst files below
DIRECTORY and one JSON object to standard output; any error but the formats' own ends it. KIND
`one` reads the one file that lies in DIRECTORY/given.
"""

import contextlib
import heapq
import json
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemmamodelfiles
from gemmad.formats.limits import BadFile
from gemmad.inspection.look import look
from gemmad.wire import PairFiles
from tests.unit.formats import hostile_gguf, hostile_json

GROWTH_BYTES = 64 << 20
WORST = 200
MAX_TEXT_CHARS = 400
NANO = Path(gemmamodelfiles.__path__[0]) / "nano" / "target"

Mutate = Callable[[random.Random], tuple[str, bytes | Path]]  # name in the repository, content
TINY = {
    "model.embed_tokens.weight": ("F32", [8, 2], 64),
    "model.norm.weight": ("BF16", [4], 8),
    "model.layers.0.mlp.up_proj.weight": ("I32", [4, 2], 32),
    "scalar": ("F32", [], 4),
}
INDEX = {
    "metadata": {"total_size": 108},
    "weight_map": dict.fromkeys(TINY, "model.safetensors"),
}


def entries() -> tuple[dict[str, Any], bytes]:
    """A sound safetensors header, and its data."""
    made: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape, size) in TINY.items():
        made[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return made, b"\0" * end


def gguf_cases() -> Mutate:
    """Targets and drafters; one in a thousand with a vocabulary of real size."""
    seeds = [hostile_gguf.sound(), hostile_gguf.sound(drafter=True)]
    large = hostile_gguf.sound(tokens=100_000)
    return lambda choose: (
        "model.gguf",
        hostile_gguf.mutated(large if choose.random() < 0.001 else choose.choice(seeds), choose),
    )


def safetensors_cases() -> Mutate:
    """Small headers; one in a thousand of many tensors."""
    made, data = entries()
    many = {
        f"t{n}": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(5_000)
    }

    def case(choose: random.Random) -> tuple[str, bytes]:
        what = (many, b"\0" * 5_000) if choose.random() < 0.001 else (made, data)
        return "model.safetensors", hostile_json.mutated_safetensors(*what, choose)

    return case


def text_cases() -> Mutate:
    """The texts of a repository that are read for their values."""
    seeds = {
        name: json.loads((NANO / name).read_text())
        for name in ("config.json", "generation_config.json", "tokenizer_config.json")
    }
    seeds["config.json"] |= {
        "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {}},
        "text_config": dict(seeds["config.json"]),
    }
    seeds["model.safetensors.index.json"] = INDEX
    names = ["config.json", *seeds]

    def case(choose: random.Random) -> tuple[str, bytes]:
        name = choose.choice(names)
        return name, hostile_json.mutated_json(seeds[name], choose)

    return case


def one_case(directory: Path) -> Mutate:
    """A file of some megabytes, which itself is no growth: it is linked, not read here."""
    [given] = directory.iterdir()
    return lambda choose: (given.name, given)


KINDS = {"gguf": gguf_cases, "safetensors": safetensors_cases, "texts": text_cases}


class Run:
    """Counts what came of each file, and keeps those that took longest."""

    def __init__(self, directory: Path) -> None:
        self.read = self.refused = self.number = 0
        self.slowest_s = 0.0
        self._directory = directory
        self._worst: list[tuple[float, Path]] = []
        made, data = entries()
        whole = len(text := json.dumps(made).encode()).to_bytes(8, "little") + text + data
        self._sound = {"model.safetensors": whole, "tokenizer.json": b'{"model": {}}'}
        for name in ("config.json", "generation_config.json"):
            self._sound[name] = (NANO / name).read_bytes()
        for name, content in self._sound.items():
            (directory / name).write_bytes(content)

    def look(self, name: str, data: bytes | Path) -> None:
        """The files of one target are read, one of them hostile."""
        files = {} if name == "model.gguf" else self._sound
        paths = {part: self._directory / part for part in (*files, name)}
        if isinstance(data, bytes):
            paths[name].write_bytes(data)
        else:
            paths[name] = data
        started = time.process_time()  # whatever else this machine does
        try:
            look(PairFiles(target={part: str(path) for part, path in paths.items()}))
            self.read += 1
        except BadFile as error:
            self.refused += 1
            self._check_text(str(error))
        self._keep(time.process_time() - started, name, data)
        if isinstance(data, bytes):
            paths[name].unlink()
        if name in self._sound:
            paths[name].write_bytes(self._sound[name])

    def _check_text(self, text: str) -> None:
        """A person can read it: one line, not long, no place of this machine."""
        assert 10 < len(text) <= MAX_TEXT_CHARS, text
        assert text.isprintable(), text
        assert str(self._directory) not in text, text

    def _keep(self, took_s: float, name: str, data: bytes | Path) -> None:
        """Of the slowest so far, the files lie in directories of their own."""
        self.number += 1
        self.slowest_s = max(self.slowest_s, took_s)
        if isinstance(data, Path) or (len(self._worst) == WORST and took_s <= self._worst[0][0]):
            return
        into = self._directory / "worst" / f"{self.number}"
        into.mkdir(parents=True)
        (into / name).write_bytes(data)
        heapq.heappush(self._worst, (took_s, into))
        if len(self._worst) > WORST:
            shutil.rmtree(heapq.heappop(self._worst)[1])


def limit_growth() -> None:
    """More than `GROWTH_BYTES` beyond what this process has now is not to be had."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def peak_bytes() -> int:
    """The most this process ever held in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    """One run; the names of files that are read are nobody's to see."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        told = fuzz(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    print(json.dumps(told))


def fuzz(kind: str, seed: int, rounds: int, directory: Path) -> dict[str, float]:
    """What came of `rounds` files."""
    case = one_case(directory / "given") if kind == "one" else KINDS[kind]()
    choose, run = random.Random(seed), Run(directory)
    run.look("config.json", b"{}")  # all modules are there
    run.read = run.refused = 0
    begun = peak_bytes()
    limit_growth()
    data: bytes | Path = b""
    try:
        for _ in range(rounds):
            name, data = case(choose)
            run.look(name, data)
    except BaseException:
        if isinstance(data, bytes):
            (directory / "failed").write_bytes(data)
        raise
    return {
        "read": run.read,
        "refused": run.refused,
        "slowest_s": run.slowest_s,
        "grown_bytes": peak_bytes() - begun,
    }


if __name__ == "__main__":
    main()
