"""The whole reading: host, pressure, GPUs of all makers, and each memory counted once."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmad.memory import macos, psi, rocm
from gemmad.memory.host import Places, cpu_kind, host_device, read_host
from gemmad.memory.nvml import Nvml
from gemmad.memory.probe import MachineProbe, Sources
from gemmad.memory.readings import Device, Host, Machine
from tests.fakes.fake_nvml import GIB, FakeNvml, Gpu

HOST = Host(64 * GIB, 48 * GIB)


def probe(gpus=(), *, amd=(), mps=(), build="", host=HOST) -> MachineProbe:
    """A probe of a machine with these."""
    sources = Sources(
        lambda: host, lambda _: list(amd), lambda _: list(mps), lambda: build, lambda: None
    )
    return MachineProbe(Nvml(lambda: FakeNvml(list(gpus))), sources)


def amd_gpu(index: int = 0) -> Device:
    """One of AMD's."""
    return Device(f"cuda:{index}", "rocm", "Radeon", 16 * GIB, 15 * GIB)


def test_a_gpu_and_the_host_are_two_budgets():
    """The host is the last device, and its own."""
    machine = probe([Gpu("GPU-0")]).read()
    assert [d.id for d in machine.devices] == ["cuda:0", "cpu"]
    assert [(b.id, b.free) for b in machine.budgets] == [("cuda:0", 20 * GIB), ("cpu", 48 * GIB)]
    assert machine.budget_of("cuda") is not None
    assert machine.budget_of("cuda").id == "cuda:0"
    assert machine.budget_of("mps") is None


def test_unified_memory_is_one_budget():
    """Of a GPU without memory of its own and the host there is one memory."""
    machine = probe([Gpu("GPU-0", memory_error=3)]).read()
    (budget,) = machine.budgets
    assert (budget.id, budget.devices) == ("cpu", ("cuda:0", "cpu"))
    assert machine.budget_of("cuda:0") == budget


@pytest.mark.parametrize(("build", "usable"), [
    ("", ["cuda"]), ("cu130", ["cuda"]), ("rocm6.4", ["rocm"]), ("cpu", []),
])  # fmt: skip
def test_a_gpu_that_torch_cannot_use_says_so(build, usable):
    """It is listed, behind the others, and never chosen; torch numbers its own from 0."""
    machine = probe([Gpu("GPU-0")], amd=[amd_gpu()], build=build).read()
    assert [d.kind for d in machine.accelerators] == usable
    assert all(d.id == "cuda:0" for d in machine.accelerators)
    assert len({d.id for d in machine.devices}) == len(machine.devices) == 3
    assert all("PyTorch" in d.note for d in machine.devices[:-1] if not d.is_usable)


def test_notes_of_the_driver_are_the_machines():
    """They reach whoever looks."""
    sources = Sources(lambda: HOST, lambda _: [], lambda _: [], lambda: "", lambda: None)
    machine = MachineProbe(Nvml(lambda: FakeNvml(driver=18)), sources).read()
    assert machine.notes


def write_card(drm: Path, name: str, address: str, *, vendor="0x1002", total=0, used=0) -> None:
    """An entry of /sys/class/drm."""
    device = drm.parent / "devices" / address
    device.mkdir(parents=True)
    for file, text in (
        ("vendor", vendor), ("mem_info_vram_total", total), ("mem_info_vram_used", used),
        ("product_name", f"Radeon {name}"),
    ):  # fmt: skip
        (device / file).write_text(f"{text}\n")
    (drm / name).mkdir(parents=True)
    (drm / name / "device").symlink_to(device)


def test_amd_gpus_are_read_from_the_kernel(tmp_path):
    """In the order of the bus; other vendors' cards and connectors are none."""
    drm = tmp_path / "drm"
    write_card(drm, "card0", "0000:41:00.0", total=16 * GIB, used=GIB)
    write_card(drm, "card1", "0000:03:00.0", total=24 * GIB, used=4 * GIB)
    write_card(drm, "card2", "0000:02:00.0", vendor="0x10de", total=GIB)
    write_card(drm, "card0-DP-1", "0000:99:00.0", total=GIB)
    found = rocm.read_devices(HOST, drm)

    assert [(d.id, d.total, d.free) for d in found] == [
        ("cuda:0", 24 * GIB, 20 * GIB), ("cuda:1", 16 * GIB, 15 * GIB),
    ]  # fmt: skip
    assert found[0].name == "Radeon card1"


def test_an_integrated_amd_gpu_has_the_hosts_memory(tmp_path):
    """What the firmware set aside for it is small."""
    write_card(tmp_path / "drm", "card0", "0000:03:00.0", total=GIB // 2)
    (found,) = rocm.read_devices(HOST, tmp_path / "drm")
    assert (found.unified, found.free) == (True, HOST.available)


def test_no_cards_are_none(tmp_path):
    """Nor a driver without the figures."""
    assert rocm.read_devices(HOST, tmp_path / "nowhere") == []
    (tmp_path / "card0" / "device").mkdir(parents=True)
    (tmp_path / "card0" / "device" / "vendor").write_text("0x1002")
    assert rocm.read_devices(HOST, tmp_path) == []


@pytest.mark.parametrize(("text", "share"), [
    ("some avg10=1.53 avg60=0.2 avg300=0 total=5\nfull avg10=9 avg60=0 avg300=0 total=0", 1.53),
    ("some avg10=0.00 avg60=0.00 avg300=0.00 total=0", 0.0),
    ("", None), ("some", None), ("some avg10=x", None), ("full avg10=3", None), ("\0\n", None),
])  # fmt: skip
def test_pressure_is_read(tmp_path, text, share):
    """The share of time in which some task waited; None where nobody says."""
    path = tmp_path / "memory"
    path.write_text(text)
    assert psi.read_pressure([path]) == share


def test_the_worst_pressure_counts(tmp_path):
    """A group can be short of memory on an idle machine."""
    for name, share in (("system", 1), ("group", 40)):
        (tmp_path / name).write_text(f"some avg10={share} avg60=0")
    paths = [tmp_path / name for name in ("system", "group", "none")]
    assert psi.read_pressure(paths) == 40.0


def test_the_host_is_read_within_its_group(tmp_path):
    """Total, available and pressure."""
    mount = tmp_path / "cgroup"
    mount.mkdir()
    for name, value in (("max", 8 * GIB), ("current", 2 * GIB), ("pressure", "some avg10=7")):
        (mount / f"memory.{name}").write_text(str(value))
    (tmp_path / "self").write_text("0::/\n")
    places = Places(mount, tmp_path / "self", tmp_path / "none")

    assert read_host(places, lambda: (64 * GIB, 48 * GIB)) == Host(8 * GIB, 6 * GIB, 7.0)
    assert read_host(places, lambda: (4 * GIB, GIB)).available == GIB


@pytest.mark.parametrize(
    ("level", "pressure"), [(1, 0), (2, 50), (4, 100), (3, None), (None, None)]
)
def test_macos_levels_are_pressures(level, pressure):
    """Normal, warning, critical."""
    assert macos.read_pressure(lambda _: level) == pressure


@pytest.mark.parametrize(("limit", "total"), [(0, 12 * GIB), (10 * 1024, 10 * GIB)])
def test_an_apple_gpu_takes_its_share_of_the_host(limit, total):
    """Metal's own share, or what the user allowed it; the memory is the host's."""
    told = {"hw.memsize": 18 * GIB, "iogpu.wired_limit_mb": limit}
    host = Host(18 * GIB, 5 * GIB)
    (device,) = macos.read_devices(host, told.get, "arm64")

    assert (device.total, device.free, device.unified) == (total, 5 * GIB, True)
    assert macos.read_devices(host, told.get, "x86_64") == []
    assert macos.read_devices(host, lambda _: None, "arm64") == []


@pytest.mark.parametrize(("machine", "flags", "kind"), [
    ("x86_64", "flags : fpu avx2", "half"), ("x86_64", "flags : avx512_bf16", "bf16"),
    ("aarch64", "Features : asimd bf16", "bf16"), ("arm64", "", "float32"), ("AMD64", "", "half"),
])  # fmt: skip
def test_a_cpu_is_told_by_its_flags(tmp_path, machine, flags, kind):
    """What decides in what form matrices are kept."""
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\n{flags}\n")
    assert cpu_kind(info, machine, tmp_path / "nothing built") == kind


def test_a_cpu_with_native_kernels_is_told_by_the_built_library(tmp_path):
    """If it has the instructions that they need."""
    info = tmp_path / "cpuinfo"
    (tmp_path / "_kernels.abi3.so").touch()
    kinds = []
    for flags in ("avx2 fma f16c avx512_bf16", "avx2 fma"):
        info.write_text(f"flags : {flags}\n")
        kinds.append(cpu_kind(info, "x86_64", tmp_path))
    assert kinds == ["native", "half"]


sizes = st.integers(0, 1 << 50)


@given(
    st.lists(st.tuples(sizes, sizes, st.booleans()), max_size=5), st.tuples(sizes, sizes),
)  # fmt: skip
def test_free_never_exceeds_total_and_each_memory_counts_once(devices, memory):
    """Whatever drivers say."""
    total, available = max(memory), min(memory)
    host = Host(total, available)
    gpus = [
        Gpu(f"GPU-{i}", t, f, memory_error=3 if unified else None)
        for i, (t, f, unified) in enumerate(devices)
    ]
    machine = probe(gpus, host=host).read()

    assert all(0 <= d.free <= d.total for d in machine.devices)
    own = sum(t for t, _, unified in devices if not unified)
    assert sum(b.total for b in machine.budgets) == own + total
    held = [id for budget in machine.budgets for id in budget.devices]
    assert sorted(held) == sorted(d.id for d in machine.devices)


def test_this_machine_can_be_read():
    """Whatever it is: the host is there and has memory, quickly and without torch's import."""
    machine = MachineProbe().read()
    assert machine.device("cpu") == host_device(machine.host)
    assert 0 < machine.host.available <= machine.host.total
    assert isinstance(machine, Machine)
