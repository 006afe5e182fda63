"""A real runner on this machine's CPU takes what its estimate said."""

import argparse

import pytest

from tests.bench import shapes
from tests.bench.estimate_cpu import run


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("context", "slots", "quantize"), [
    (4096, 1, None), (8192, 4, None), (4096, 1, "int8"),
])  # fmt: skip
async def test_a_runner_takes_what_was_estimated(tmp_path, context, slots, quantize):
    """Within a tenth, its context full. Small as it is, most of it is the process itself."""
    options = argparse.Namespace(shape="nano", context=context, slots=slots, quantize=quantize)
    found = await run(shapes.NANO, options, tmp_path / "log")
    assert found["ratio"] == pytest.approx(1, abs=0.15), str(found)
