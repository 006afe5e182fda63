"""What a device offers is read right."""

from pathlib import Path

import pytest
import torch

from gemmarunner.device import _cpu_quota, free_bytes


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5), ("", None)],
)
def test_quota_of_a_container_counts_as_cpus(tmp_path: Path, text, cpus) -> None:
    """As cgroup v2 states it."""
    (tmp_path / "cpu.max").write_text(text + "\n")

    assert _cpu_quota(tmp_path) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("200000", 2.0), ("-1", None)])
def test_quota_of_an_old_kernel_counts_as_cpus(tmp_path: Path, quota, cpus) -> None:
    """As cgroup v1 states it."""
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")

    assert _cpu_quota(tmp_path) == cpus


def test_no_control_groups_means_no_limit(tmp_path: Path) -> None:
    """As on a Mac."""
    assert _cpu_quota(tmp_path) is None


def test_free_memory_of_the_cpu_is_the_systems() -> None:
    """Some, and it does not fail."""
    assert free_bytes("cpu") > 0


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS here")
def test_free_memory_of_mps_stays_within_what_metal_recommends() -> None:
    """Beyond it, unified memory swaps."""
    assert 0 < free_bytes("mps") <= torch.mps.recommended_max_memory()
