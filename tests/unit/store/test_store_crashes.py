"""A kill or an error at any file-system call leaves a store that is whole."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gemmad.core import ModelName
from gemmad.store.store import Store
from tests.fakes.faulty_disk import MODES, FaultyDisk, Killed
from tests.fakes.store_scenes import check_invariants, run_script

SCRIPT = [
    ("put", "a", b"alpha", b"shared"),
    ("copy", "a", "ns/b:x"),
    ("put", "c", b"gamma", b"shared"),
    ("put", "a", b"alpha two", b"shared"),
    ("delete", "ns/b:x"),
    ("delete", "a"),
]
TOUCHED = {"a:latest", "ns/b:x", "c:latest"}


def calls_of(script, tmp_path) -> int:
    disk = FaultyDisk()
    run_script(Store(tmp_path / "probe", disk), script)
    return len(disk.calls)


@pytest.mark.slow  # test_store_injections.py hits a few calls of each in the fast suite
@pytest.mark.parametrize("mode", MODES)
def test_a_failure_at_every_single_call_leaves_a_whole_store(tmp_path, mode):
    """I1 and I2 hold after each of them, and a name that the failing step does not touch stays."""
    total = calls_of(SCRIPT, tmp_path)
    assert total > 60

    for fail_at in range(1, total + 1):
        root = tmp_path / str(fail_at)
        with suppress(Killed, OSError):
            run_script(Store(root, FaultyDisk(fail_at, mode)), SCRIPT)
        assert check_invariants(root) <= TOUCHED


@pytest.mark.slow
def test_a_name_listed_before_a_kill_is_listed_after_it(tmp_path):
    """Replacing, copying or deleting other names never loses a name (I3)."""
    script = [("put", "b", b"other", b"shared"), ("copy", "b", "d"), ("delete", "b")]
    total = calls_of(script, tmp_path)
    for fail_at in range(1, total + 1):
        root = tmp_path / str(fail_at)
        run_script(Store(root), [("put", "keep", b"kept", b"shared")])
        with suppress(Killed):
            run_script(Store(root, FaultyDisk(fail_at, "kill")), script)
        assert "keep:latest" in check_invariants(root)


NAMES = st.sampled_from(["a", "b", "c/d", "c/d:t"])
CONTENTS = st.sampled_from([b"", b"one", b"two", b"three" * 100])
STEPS = st.one_of(
    st.tuples(st.just("put"), NAMES, CONTENTS, CONTENTS),
    st.tuples(st.just("copy"), NAMES, NAMES),
    st.tuples(st.just("delete"), NAMES),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    script=st.lists(STEPS, min_size=1, max_size=8),
    lives=st.lists(st.tuples(st.integers(1, 60), st.sampled_from(MODES)), max_size=3),
)
def test_random_scripts_over_several_killed_lives_keep_the_invariants(
    tmp_path_factory, script, lives
):
    """Whatever is done and whenever the process dies, I1 and I2 hold and work can go on."""
    root = tmp_path_factory.mktemp("store")
    for fail_at, mode in lives:
        with suppress(Killed, OSError):
            run_script(Store(root, FaultyDisk(fail_at, mode)), script)
        check_invariants(root)

    last = script[-1]
    if run_script(Store(root), script)[-1:] == [last]:
        expected = last[0] != "delete"
        name = last[2] if last[0] == "copy" else last[1]
        assert (str(ModelName.parse(name)) in check_invariants(root)) is expected
