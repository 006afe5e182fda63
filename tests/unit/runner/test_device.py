"""Where a runner computes, and with how many threads."""

from collections.abc import Iterator

import psutil
import pytest
import torch

from gemmad.api.errors import LoadFailed
from gemmarunner import device
from gemmarunner.device import use_threads

NANO_BYTES = 28 * 2**20
LARGE_BYTES = 4 * 2**30


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of four cores, whose user asked for nothing."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: range(4), raising=False)
    yield
    torch.set_num_threads(before)


def test_a_small_model_computes_with_one_thread() -> None:
    """Threads would cost it more than they bring."""
    use_threads(0, "cpu", NANO_BYTES)
    assert torch.get_num_threads() == 1


def test_a_large_model_computes_with_every_physical_core() -> None:
    """Its matrices take long enough to be shared."""
    use_threads(0, "cpu", LARGE_BYTES)
    assert torch.get_num_threads() == 4


def test_the_number_of_threads_that_was_asked_for_is_used() -> None:
    """Whatever the size of the model."""
    use_threads(3, "cpu", NANO_BYTES)
    assert torch.get_num_threads() == 3


def test_a_number_of_threads_in_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """OMP_NUM_THREADS was read by torch when it was imported; nothing overrides it."""
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    use_threads(0, "cpu", NANO_BYTES)
    assert torch.get_num_threads() == 2


def test_one_of_several_gpus_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda:1` is a device where there are two; what is not there is refused by name."""
    monkeypatch.setitem(device._DEVICES, "cuda", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert [device.resolve_device(name) for name in ("cuda", "cuda:1", "cpu")] == [
        "cuda", "cuda:1", "cpu",
    ]  # fmt: skip
    for name in ("cuda:2", "cuda:x", "cpu:1", "tpu"):
        with pytest.raises(LoadFailed, match=f"no device '{name}'"):
            device.resolve_device(name)
