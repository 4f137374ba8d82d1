"""Small disks: file systems in memory, mounted where a test wants them. Not every container lets root do that."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def mount(folder: Path, options: str) -> None:
    """Mount one with these options of tmpfs(5); the test is skipped where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount(8) here")
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {' '.join(done.stderr.split())}")


def remount(folder: Path, options: str) -> None:
    """Change the options of a file system that `mount` has mounted."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Unmount it, even if it is in use; does nothing if none is mounted."""
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)
