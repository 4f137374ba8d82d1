"""Finds processes by what stands in their environment."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path


def all_pids() -> list[int]:
    """Return every process of the system."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 (asked for fifty times a second)


def read(pid: int, file: str) -> str:
    """Return what /proc says of a process. Raises OSError where it has ended or is another user's."""
    with open(f"/proc/{pid}/{file}", "rb", 0) as source:  # noqa: PTH123 (as above)
        return source.read().decode("utf-8", "replace")


def with_variable(name: str, value: Path | str) -> dict[int, list[str]]:
    """Return pid → command line of every process, but this one, in whose environment the variable has this value."""
    mark = f"{name}={value}"
    found = {}
    for pid in all_pids():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if pid != os.getpid() and mark in read(pid, "environ").split("\0"):
                found[pid] = read(pid, "cmdline").split("\0")[:-1]
    return found


def of_home(home: Path | str) -> dict[int, list[str]]:
    """Return pid → command line of every process of the user whose home folder this is."""
    return with_variable("HOME", home)


def of_state(folder: Path | str) -> dict[int, list[str]]:
    """Return pid → command line of every process whose state folder is this one."""
    return with_variable("RBEE_HOME", folder)


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone, or waits only to be reaped."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
