"""Control groups: the tightest limit above this process, in both hierarchies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemmad.memory.cgroup import own_group, read_limit

GIB = 1 << 30


def group(path: Path, *, limit: object = "max", high: object = "max", used: int = 0, **stat: int):
    """A group of the unified hierarchy."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.high").write_text(f"{high}\n")
    (path / "memory.current").write_text(f"{used}\n")
    (path / "memory.stat").write_text("".join(f"{k} {v}\n" for k, v in stat.items()))
    return path


def told(tmp_path: Path, text: str) -> Path:
    """What /proc/self/cgroup says."""
    path = tmp_path / "self"
    path.write_text(text)
    return path


def test_the_tightest_of_nested_groups_holds(tmp_path):
    """A service's limit, its slice's, and what others in the slice use."""
    mount = tmp_path / "cgroup"
    group(mount / "user.slice", limit=8 * GIB, used=7 * GIB)
    group(mount / "user.slice" / "gemmad.service", limit=4 * GIB, used=GIB)
    found = read_limit(mount, told(tmp_path, "0::/user.slice/gemmad.service\n"))

    assert found == (4 * GIB, GIB)


def test_no_limit_is_none(tmp_path):
    """Groups that say max say nothing."""
    mount = tmp_path / "cgroup"
    group(mount / "a.slice", used=GIB)
    assert read_limit(mount, told(tmp_path, "0::/a.slice\n")) is None


def test_file_pages_are_left(tmp_path):
    """The kernel drops them before it kills anybody."""
    mount = tmp_path / "cgroup"
    group(mount / "a", limit=4 * GIB, used=3 * GIB, inactive_file=GIB, active_file=GIB, anon=GIB)
    assert read_limit(mount, told(tmp_path, "0::/a\n")) == (4 * GIB, 3 * GIB)


def test_a_soft_limit_counts(tmp_path):
    """Above memory.high everything is slowed to a crawl."""
    mount = tmp_path / "cgroup"
    group(mount / "a", limit=8 * GIB, high=2 * GIB, used=GIB)
    assert read_limit(mount, told(tmp_path, "0::/a\n")) == (2 * GIB, GIB)


def test_a_container_sees_its_group_at_the_mount(tmp_path):
    """Whatever path it is told."""
    mount = group(tmp_path / "cgroup", limit=2 * GIB, used=GIB)
    for text in ("0::/\n", "0::/docker/0123\n", "0::/../../elsewhere\n"):
        assert read_limit(mount, told(tmp_path, text)) == (2 * GIB, GIB)


def test_the_old_hierarchy_is_read(tmp_path):
    """Its controller among others, nested, and its word for no limit."""
    mount = tmp_path / "cgroup"
    for path, limit in (("a", GIB), ("a/b", 9223372036854771712)):
        place = mount / "memory" / path
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (place / "memory.usage_in_bytes").write_text(f"{GIB // 2}\n")
        (place / "memory.stat").write_text("inactive_file 5\ntotal_inactive_file 1024\n")
    text = "9:cpu,cpuacct:/x\n4:hugetlb,memory:/a/b\n1:name=systemd:/y\n"

    assert read_limit(mount, told(tmp_path, text)) == (GIB, GIB // 2 + 1024)


def test_use_beyond_the_limit_leaves_nothing(tmp_path):
    """Never less."""
    mount = group(tmp_path / "cgroup", limit=GIB, used=2 * GIB)
    assert read_limit(mount, told(tmp_path, "0::/\n")) == (GIB, 0)


@pytest.mark.parametrize("text", ["", "nonsense", "0::", "::::", "4:memory", "\0"])
def test_what_cannot_be_read_is_no_limit(tmp_path, text):
    """Other systems have no such files."""
    assert read_limit(tmp_path / "nowhere", told(tmp_path, text)) is None
    assert read_limit(tmp_path / "nowhere", tmp_path / "neither") is None


def test_files_of_nonsense_are_no_limit(tmp_path):
    """A number is a number."""
    mount = group(tmp_path / "cgroup", limit="lots", used=1)
    assert read_limit(mount, told(tmp_path, "0::/\n")) is None


def test_the_own_group_is_found(tmp_path):
    """Where its pressure stands."""
    mount = tmp_path / "cgroup"
    inner = group(mount / "a" / "b")
    assert own_group(mount, told(tmp_path, "0::/a/b\n")) == inner


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), min_size=1, max_size=4)
)
def test_what_is_left_never_exceeds_any_limit(tmp_path_factory, limits):
    """Over any nesting."""
    tmp_path = tmp_path_factory.mktemp("groups")
    mount, names = tmp_path / "cgroup", [f"g{index}" for index in range(len(limits))]
    for depth, (limit, used) in enumerate(limits):
        group(mount.joinpath(*names[: depth + 1]), limit=limit, used=used)
    found = read_limit(mount, told(tmp_path, f"0::/{'/'.join(names)}\n"))

    assert found is not None
    assert found.total == min(limit for limit, _ in limits)
    assert found.left == min(max(0, limit - used) for limit, used in limits)
