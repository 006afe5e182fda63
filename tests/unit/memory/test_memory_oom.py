"""Kills for want of memory, as Linux counts them."""

from pathlib import Path

import pytest

from gemmad.memory.oom import kills


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("nr_free_pages 9\noom_kill 3\ndrop_slab 0\n", 3),
        ("nr_free_pages 9\n", 0),
        ("oom_kill \n", 0),
    ],
)
def test_kills_are_read_from_the_kernel_s_figures(tmp_path: Path, text: str, count: int) -> None:
    """An old kernel has no such line."""
    (tmp_path / "vmstat").write_text(text)

    assert kills(tmp_path / "vmstat") == count


def test_no_kernel_that_counts_is_no_kill(tmp_path: Path) -> None:
    """Another system has no such file."""
    assert kills(tmp_path / "vmstat") == 0
