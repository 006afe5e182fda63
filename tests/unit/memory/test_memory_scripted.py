"""Readings played from a script."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmad.api.errors import BadRequest
from gemmad.memory.scripted import ScriptedProbe, script

GIB = 1 << 30
HOST = {"total": "64GiB", "available": 50 * GIB}


def text(*readings: object) -> bytes:
    """A script."""
    return json.dumps({"readings": readings}).encode()


def test_readings_are_played_in_order_and_the_last_stays(tmp_path):
    """Each as often as it says."""
    gpu = {"id": "cuda:0", "total": "24 GiB", "free": "20.5GiB"}
    path = tmp_path / "script.json"
    full = {"host": HOST, "devices": [gpu | {"free": 0}], "notes": ["full"]}
    path.write_bytes(text({"host": HOST, "devices": [gpu], "repeat": 2}, full))
    probe = ScriptedProbe.of_file(path)
    free = [probe.read().budgets[0].free for _ in range(5)]

    assert free == [int(20.5 * GIB)] * 2 + [0] * 3
    assert probe.read().notes == ("full",)


def test_a_script_cannot_have_more_free_than_there_is():
    """Nor unified memory more than the host."""
    gpu = {"id": "mps", "kind": "mps", "total": "99GiB", "free": "99GiB", "unified": True}
    host = {"total": "16GiB", "available": "17GiB", "pressure": 50.0}
    (machine,) = script(text({"host": host, "devices": [gpu]}))

    assert machine.host.available == 16 * GIB
    assert machine.devices[0].free == 16 * GIB
    assert len(machine.budgets) == 1


@pytest.mark.parametrize("bad", [
    b"", b"[]", b"{}", text(), text({}), text({"host": HOST | {"total": "much"}}), b"\xff",
    text({"host": HOST | {"total": -1}}), text({"host": HOST, "what": 1}),
    text({"host": HOST, "devices": [{"id": "x"}]}),
])  # fmt: skip
def test_what_is_no_script_is_refused(bad):
    """With words for whoever wrote it."""
    with pytest.raises(BadRequest, match="script"):
        script(bad)


def test_a_script_that_is_not_there_is_refused(tmp_path):
    """By its reason."""
    with pytest.raises(BadRequest, match="cannot be read"):
        ScriptedProbe.of_file(tmp_path / "none")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_script_or_refused(data):
    """Nothing else comes of them."""
    with contextlib.suppress(BadRequest):
        assert script(data)
