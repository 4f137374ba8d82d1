"""The memory and the processors that control groups leave to a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rbee.adapters.hardware import cgroups

if TYPE_CHECKING:
    from pathlib import Path

UNLIMITED_1 = 9223372036854771712
"""What version 1 says where nothing is limited: the largest number of whole pages."""


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """Where control groups would be mounted."""
    return tmp_path / "cgroup"


def limits(mount: Path, own: str) -> list[tuple[int, int]]:
    file = mount.parent / "own"
    file.write_text(own)
    return [(space.total, space.available) for space in cgroups.memory_limits(file, mount)]


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({"max": "max", "current": 1}, []),
        ({"max": 4}, [(4, 4)]),
        ({"max": 4, "current": 3}, [(4, 1)]),
        ({"max": 4, "current": 3, "stat": "anon 5\ninactive_file 1"}, [(4, 2)]),
        ({"max": 4, "current": 5}, [(4, 0)]),
        ({"max": 4, "current": 3, "stat": "inactive_file"}, [(4, 1)]),
    ],
)
def test_version_2(mount: Path, files: dict[str, object], expected: list[tuple[int, int]]) -> None:
    group(mount / "user" / "me", **files)
    assert limits(mount, "0::/user/me\n") == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"limit_in_bytes": UNLIMITED_1, "usage_in_bytes": 0}, [(UNLIMITED_1, UNLIMITED_1)]),
        ({"limit_in_bytes": 4, "usage_in_bytes": 3}, [(4, 1)]),
        ({"limit_in_bytes": 4, "usage_in_bytes": 3, "stat": "inactive_file 0\ntotal_inactive_file 1"}, [(4, 2)]),
    ],
)
@pytest.mark.parametrize("controllers", ["memory", "cpu,memory"])
def test_version_1(mount: Path, controllers: str, files: dict[str, object], expected: list[tuple[int, int]]) -> None:
    group(mount / "memory" / "me", **files)
    assert limits(mount, f"9:name=systemd:/\n4:{controllers}:/me\n0::/\n") == expected


def test_outer_groups_limit_the_inner_ones(mount: Path) -> None:
    group(mount / "a" / "b", max=4, current=1)
    group(mount / "a", max="max", current=1)
    group(mount, max=2, current=1)
    assert limits(mount, "0::/a/b\n") == [(4, 3), (2, 1)]


def test_what_is_around_the_mount_is_no_group(mount: Path) -> None:
    group(mount, max=4)
    group(mount.parent, max=2)
    assert limits(mount, "0::/\n") == limits(mount, "0::/../../me\n") == [(4, 4)]


def test_in_a_container_that_sees_the_hosts_path_its_own_root_counts(mount: Path) -> None:
    group(mount / "memory", limit_in_bytes=4, usage_in_bytes=1)
    assert limits(mount, "4:memory:/docker/0123456789ab\n") == [(4, 3)]


def test_without_control_groups_there_are_no_limits(mount: Path) -> None:
    assert list(cgroups.memory_limits(mount / "missing", mount)) == []


def test_the_smallest_share_of_the_processors_counts(mount: Path) -> None:
    own = mount.parent / "own"
    own.write_text("0::/user/me\n")
    for content, expected in (("max 100000", None), ("150000 100000", 2), ("what", None)):
        group(mount / "user" / "me")
        (mount / "user" / "me" / "cpu.max").write_text(content)
        assert cgroups.processors(own, mount) == expected
    (mount / "user" / "cpu.max").write_text("100000 100000")
    (mount / "user" / "me" / "cpu.max").write_text("250000 100000")
    assert cgroups.processors(own, mount) == 1
    assert cgroups.processors(mount / "none", mount) is None


UNIT_1 = {"quota_us": "cpu.cfs_quota_us", "period_us": "cpu.cfs_period_us"}


def processors(mount: Path, own: str, **groups: tuple[int, int]) -> int | None:
    """Return what is granted to a process of version 1 whose groups, by their folders, have a quota and a period."""
    file = mount.parent / "own"
    file.write_text(own)
    for folder, numbers in groups.items():
        path = mount / folder.replace("__", ",").replace("_", "/")
        path.mkdir(parents=True, exist_ok=True)
        for name, number in zip(UNIT_1.values(), numbers, strict=True):
            (path / name).write_text(f"{number}\n")
    return cgroups.processors(file, mount)


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        ("4:cpu:/me\n", {"cpu_me": (100_000, 100_000)}, 1),
        ("4:cpu:/me\n", {"cpu_me": (150_000, 100_000)}, 2),
        ("4:cpu:/me\n", {"cpu_me": (50_000, 100_000)}, 1),
        ("4:cpu:/me\n", {"cpu_me": (-1, 100_000)}, None),
        ("4:cpu:/me\n", {"cpu_me": (100_000, 0)}, None),
        ("4:cpu,cpuacct:/me\n", {"cpu_me": (400_000, 100_000)}, 4),
        ("4:cpu,cpuacct:/me\n", {"cpu__cpuacct_me": (300_000, 100_000)}, 3),
        ("4:cpuacct,cpu:/me\n", {"cpu_me": (200_000, 100_000)}, 2),
        ("4:cpu:/a/b\n", {"cpu_a_b": (400_000, 100_000), "cpu_a": (100_000, 100_000), "cpu": (-1, 100_000)}, 1),
        ("4:cpu:/docker/0123456789ab\n", {"cpu": (200_000, 100_000)}, 2),
        ("4:cpuset:/me\n", {"cpu_me": (100_000, 100_000)}, None),
        ("4:cpu:/../../me\n", {"cpu": (100_000, 100_000)}, 1),
        ("5:memory:/me\n4:cpu:/me\n0::/user\n", {"cpu_me": (100_000, 100_000)}, 1),
    ],
)
def test_the_share_of_the_processors_in_version_1(
    mount: Path, own: str, groups: dict[str, tuple[int, int]], expected: int | None
) -> None:
    assert processors(mount, own, **groups) == expected


def test_both_versions_may_be_in_use_at_once(mount: Path) -> None:
    group(mount / "memory" / "me", limit_in_bytes=4, usage_in_bytes=1)
    (mount / "unified" / "user").mkdir(parents=True)
    (mount / "unified" / "user" / "cpu.max").write_text("200000 100000\n")
    own = "4:memory:/me\n0::/user\n"
    assert limits(mount, own) == [(4, 3)]
    assert cgroups.processors(mount.parent / "own", mount) == 2
    assert processors(mount, "3:cpu:/me\n" + own, cpu_me=(100_000, 100_000)) == 1


def test_a_limit_on_files_that_hold_nonsense_is_none(mount: Path) -> None:
    (mount / "cpu" / "me").mkdir(parents=True)
    for name in UNIT_1.values():
        (mount / "cpu" / "me" / name).write_text("what\n")
    assert processors(mount, "4:cpu:/me\n") is None
