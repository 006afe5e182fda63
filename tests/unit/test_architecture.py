"""The architecture as a test: what each entry point may import, and why not the rest."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "torch": "1.3 s and 500 MB",
    "transformers": "2 s and 200 MB",
    "numpy": "0.1 s and 30 MB",
    "tokenizers": "only a runner turns text into tokens",
    "safetensors": "only a runner reads weights",
}
EDGE = {
    "msgspec": "frames end in `serving`",
    "transformers": "the oracle, not a part",
    "tokenizers": "the numbers know tokens, not text",
    "psutil": "the machine is asked about in `device`",
    "triton": "installations of torch for the CPU have none",
}
NUMBERS = (  # `*_triton` hold kernels, and are imported once there is a GPU
    "import importlib, pkgutil, gemmarunner.kernels as kernels\n"
    "import gemmarunner.cuda.backend, gemmarunner.engine.engine, gemmarunner.quant.formats\n"
    "for module in pkgutil.iter_modules(kernels.__path__, 'gemmarunner.kernels.'):\n"
    "    if not module.name.endswith('_triton'):\n"
    "        importlib.import_module(module.name)"
)
CLIENT = HEAVY | {
    "aiohttp": "0.3 s; the client speaks HTTP by itself",
    "msgspec": "the client reads plain JSON",
    "rich": "loaded when a bar is drawn",
    "prompt_toolkit": "loaded by the REPL",
    "gemmad.wire": "frames are between daemon and runner",
}


def imported_by(statement: str) -> set[str]:
    """Names in sys.modules after `statement` in a fresh interpreter."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import gemmad.app", HEAVY | {"gemmarunner": "the engine lives in a child"}),
        ("import gemmacli.main", CLIENT),
        ("import gemmad.api.errors, gemmad.api.paths", CLIENT),
        ("import gemmarunner.__main__", {"torch": "the runner says hello before it imports torch"}),
        (NUMBERS, EDGE),
    ],
)
def test_entry_point_imports_nothing_heavy(statement: str, forbidden: dict[str, str]) -> None:
    """An entry point starts without the modules of this table, each for the reason beside it."""
    loaded = imported_by(statement)

    assert {name: why for name, why in forbidden.items() if name in loaded} == {}
