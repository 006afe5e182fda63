"""NVIDIA's driver: GPUs counted, divided, hidden, late and lost."""

import pytest

from gemmad.memory.nvml import Nvml
from gemmad.memory.readings import Host
from tests.fakes.fake_nvml import GIB, FakeNvml, Gpu, NVMLError

HOST = Host(64 * GIB, 48 * GIB)


def gpus(count: int) -> list[Gpu]:
    """So many."""
    return [Gpu(f"GPU-{index}") for index in range(count)]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_every_gpu_is_listed(count):
    """In the driver's order, with what is free of each."""
    fake = FakeNvml(gpus(count))
    found = Nvml(lambda: fake).read(HOST)

    assert [d.id for d in found.devices] == [f"cuda:{index}" for index in range(count)]
    assert all((d.total, d.free, d.note) == (24 * GIB, 20 * GIB, "") for d in found.devices)


def test_the_session_stays_open():
    """A reading is a few questions, not a start of the library."""
    fake = FakeNvml(gpus(2))
    nvml = Nvml(lambda: fake)
    for _ in range(5):
        nvml.read(HOST)

    assert fake.sessions == 1
    nvml.close()
    assert not fake.is_open


def test_another_programs_use_counts():
    """What is free is asked anew each time."""
    fake = FakeNvml(gpus(1))
    nvml = Nvml(lambda: fake)
    nvml.read(HOST)
    fake.gpus[0].free = GIB

    assert nvml.read(HOST).devices[0].free == GIB


def test_a_divided_gpu_shows_its_instances():
    """Instances instead of the whole; places that nobody took are left out."""
    parts = [Gpu("MIG-a", 12 * GIB, 11 * GIB), Gpu("MIG-b", 6 * GIB, 6 * GIB)]
    fake = FakeNvml([Gpu("GPU-0", instances=parts), Gpu("GPU-1")])
    found = Nvml(lambda: fake).read(HOST).devices

    assert [d.uuid for d in found] == ["MIG-a", "MIG-b", "GPU-1"]
    assert [d.id for d in found] == ["cuda:0", "cuda:1", "cuda:2"]
    assert found[0].free == 11 * GIB


def test_a_divided_gpu_without_instances_offers_nothing():
    """Its memory is nobody's to take."""
    fake = FakeNvml([Gpu("GPU-0", instances=[])])
    assert Nvml(lambda: fake).read(HOST).devices == ()


@pytest.mark.parametrize("code", [9, 12])
def test_no_driver_is_no_trouble(code):
    """A machine without an NVIDIA GPU has nothing to be told."""
    found = Nvml(lambda: FakeNvml(driver=code)).read(HOST)
    assert (found.devices, found.notes) == ((), ())


def test_no_binding_is_no_trouble():
    """Nor one where it is not installed."""

    def load():
        raise ImportError("pynvml")

    assert Nvml(load).read(HOST).devices == ()


def test_a_driver_that_comes_late_is_seen():
    """At boot the daemon may be first."""
    fake = FakeNvml(gpus(1), driver=9)
    nvml = Nvml(lambda: fake)
    before = nvml.read(HOST)
    fake.driver = None

    assert before.devices == ()
    assert len(nvml.read(HOST).devices) == 1


@pytest.mark.parametrize("code", [15, 999])
def test_a_lost_gpu_is_named_and_not_used(code):
    """The other one goes on; what is lost has no room and says why."""
    fake = FakeNvml(gpus(2))
    nvml = Nvml(lambda: fake)
    nvml.read(HOST)
    fake.gpus[1].error = code
    well, lost = nvml.read(HOST).devices

    assert well.is_usable
    assert not lost.is_usable
    assert (lost.id, lost.total, lost.free) == ("cuda:1", 24 * GIB, 0)
    assert lost.note.startswith("gpu lost: ")
    assert str(code) in lost.note


def test_a_driver_that_goes_takes_its_gpus_but_not_their_names():
    """After a suspend the whole driver may be gone: lost is not the same as never there."""
    fake = FakeNvml(gpus(2))
    nvml = Nvml(lambda: fake)
    nvml.read(HOST)
    fake.driver = 9
    gone = nvml.read(HOST).devices

    assert [d.note.partition(":")[0] for d in gone] == ["gpu lost"] * 2


def test_a_gpu_that_comes_back_is_used_again():
    """A new session is opened, and its memory read."""
    fake = FakeNvml(gpus(1))
    nvml = Nvml(lambda: fake)
    nvml.read(HOST)
    fake.gpus[0].error = 15
    nvml.read(HOST)
    fake.gpus[0].error = None

    assert nvml.read(HOST).devices[0].is_usable
    assert fake.sessions == 2


def test_a_gpu_that_was_lost_from_the_start_is_listed():
    """Nothing is known of it but its place."""
    fake = FakeNvml([Gpu("GPU-0", error=999)])
    (lost,) = Nvml(lambda: fake).read(HOST).devices
    assert (lost.id, lost.free) == ("cuda:0", 0)


def test_an_updated_driver_asks_for_a_restart():
    """Library and kernel module of different versions: the commonest trouble of all."""
    (note,) = Nvml(lambda: FakeNvml(driver=18)).read(HOST).notes
    assert "restart" in note


def test_an_unknown_trouble_is_told():
    """In the driver's own words."""
    (note,) = Nvml(lambda: FakeNvml(driver=4)).read(HOST).notes
    assert "error 4" in note


def test_an_integrated_gpu_has_the_hosts_memory():
    """The driver knows no memory of its own for it."""
    fake = FakeNvml([Gpu("GPU-0", memory_error=3, name=b"GB10")])
    (device,) = Nvml(lambda: fake).read(HOST).devices

    assert (device.unified, device.total, device.free) == (True, HOST.total, HOST.available)
    assert device.name == "GB10"


@pytest.mark.parametrize(("visible", "uuids"), [
    (None, ["GPU-0", "GPU-1", "GPU-2"]), ("", []), ("-1", []), ("2,0", ["GPU-2", "GPU-0"]),
    ("1,7,0", ["GPU-1"]), ("GPU-2", ["GPU-2"]), ("GPU-1, 0", ["GPU-1", "GPU-0"]),
    ("0,0", ["GPU-0"]), ("x", []),
])  # fmt: skip
def test_only_visible_gpus_are_offered(visible, uuids):
    """As CUDA numbers them: it stops at the first that it does not know."""
    found = Nvml(lambda: FakeNvml(gpus(3))).read(HOST, visible).devices
    assert [d.uuid for d in found] == uuids
    assert [d.id for d in found] == [f"cuda:{index}" for index in range(len(uuids))]


def test_a_fault_of_ours_is_not_swallowed():
    """Only the driver's own errors are notes."""

    class Broken(FakeNvml):
        def nvmlDeviceGetCount(self):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Nvml(lambda: Broken()).read(HOST)
    assert issubclass(NVMLError, Exception)
