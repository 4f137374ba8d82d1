"""Finds processes by what stands in their environment."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path


def with_variable(name: str, value: Path | str) -> dict[int, list[str]]:
    """Return pid → command line of every process, but this one, in whose environment the variable has this value."""
    mark = f"{name}={value}".encode()
    found = {}
    for folder in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 (asked for fifty times a second)
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if int(folder) != os.getpid() and mark in _words(folder, "environ"):
                found[int(folder)] = [word.decode("utf-8", "replace") for word in _words(folder, "cmdline")[:-1]]
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


def _words(folder: str, file: str) -> list[bytes]:
    with open(f"/proc/{folder}/{file}", "rb", 0) as source:  # noqa: PTH123 (as above)
        return source.read().split(b"\0")
