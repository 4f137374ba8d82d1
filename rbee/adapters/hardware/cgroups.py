"""Finds the limits that control groups set for this process (cgroups(7), versions 1 and 2)."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.wire.hive import Space

if TYPE_CHECKING:
    from collections.abc import Iterator

MOUNT: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")


class _Files(NamedTuple):
    """Where a version keeps its numbers; `reclaimable` is a line of memory.stat."""

    limit: str
    used: str
    reclaimable: str


_VERSION_1: Final = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2: Final = _Files("memory.max", "memory.current", "inactive_file")


def memory_limits(own: Path = OWN, mount: Path = MOUNT) -> Iterator[Space]:
    """Yield limit and remaining bytes of this process's group and of its parents: all of them apply.

    A group without a limit is left out in version 2, and has one beyond all memory in version 1.
    """
    for folder, version in _groups(own, mount, "memory"):
        files = _VERSION_1 if version == 1 else _VERSION_2
        if (limit := _number(folder / files.limit)) is None:
            continue
        used = _number(folder / files.used) or 0
        # The page cache counts as used, but the kernel gives it back: psutil calls that available too.
        rest = limit - used + _statistic(folder / "memory.stat", files.reclaimable)
        yield Space(total=limit, available=max(0, rest))


def processors(own: Path = OWN, mount: Path = MOUNT) -> int | None:
    """Return how many processors the groups grant at a time; None where they set no bound.

    Which ones these are (cpuset) the system says to whoever asks for the affinity.
    """
    bounds = []
    for folder, version in _groups(own, mount, "cpu"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            if version == 1:
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            else:
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            if quota > 0 and period > 0:  # version 1 has -1 for no bound
                bounds.append(math.ceil(quota / period))
    return min(bounds, default=None)


def _groups(own: Path, mount: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folders of this process's group and of its parents, each with its version, where that may hold limits.

    Both versions may be in use at once, each with some of the controllers.
    """
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                version, root = 2, mount / "unified" if (mount / "unified").is_dir() else mount
            elif controller in controllers.split(","):
                # A hierarchy of several controllers has their names, and each of them leads there, or should.
                version, root = 1, mount / controller if (mount / controller).is_dir() else mount / controllers
            else:
                continue
            # A group outside the mount begins with "..", and cannot be read. In a container the path may
            # be the host's: then the only folder of it that is there is the container's own root.
            inner = root if ".." in path.split("/") else root / path.lstrip("/")
            for folder in (inner, *inner.parents):
                if not folder.is_relative_to(root):
                    break
                yield folder, version


def _number(file: Path) -> int | None:
    """Read a number; "max", which is no limit, and a missing file are None."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _statistic(file: Path, wanted: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == wanted:
                return int(value)
    return 0
