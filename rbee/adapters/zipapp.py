"""Finds rbee.pyz, the file that the program is installed from, and builds it in a checkout."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rbee
from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_COMMENT: Final = re.compile(rb"rbee\.pyz (\S+)")
"""What build/zipapp.py writes as the comment of the file that starts it."""

GIVE_UP_SECONDS: Final = 5.0
"""For a build that is given up to remove what is half done; then it is killed."""


def version_of(path: Path) -> str | None:
    """Return the version of the rbee.pyz at `path`, or None where something else is there, or nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = _COMMENT.fullmatch(archive.getinfo("__main__.py").comment)
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
    return found[1].decode() if found else None


class Builder:
    """The build that may be needed first; a caller that waits no longer ends it, from another thread."""

    def __init__(self) -> None:
        self.is_given_up = False
        self._group: int | None = None
        self._timer: threading.Timer | None = None

    def started(self, group: int) -> None:
        """Remember the build's process group."""
        self._group = group
        if self.is_given_up:
            self.give_up()

    def give_up(self) -> None:
        """End the build with all that it has started: at first in a way that lets it remove what is half done."""
        self.is_given_up = True
        if self._group is not None:
            self._send(signal.SIGTERM)
            self._timer = threading.Timer(GIVE_UP_SECONDS, self._send, [signal.SIGKILL])
            self._timer.daemon = True
            self._timer.start()

    def ended(self) -> None:
        """Forget the build, which is gone."""
        self._group = None
        if self._timer is not None:
            self._timer.cancel()

    def _send(self, number: signal.Signals) -> None:
        if (group := self._group) is not None:
            with suppress(ProcessLookupError):
                os.killpg(group, number)


def locate(report: Callable[[str], None], builder: Builder | None = None) -> Path:
    """Return the file that runs, or in a checkout dist/rbee.pyz, built first where it is missing or out of date.

    Blocks while it builds; `report` gets the lines that this prints. A `builder` can end it; without, it gets the
    terminal's signals. Raises StorageError where there is no such file.
    """
    running = Path(sys.argv[0]).resolve()
    if version_of(running) is not None:
        return running
    root = Path(rbee.__file__).resolve().parent.parent
    if not (root / "build" / "zipapp.py").is_file():
        raise StorageError(
            "there is no rbee.pyz to install: this rbee is a Python package, which pip or the like has installed",
            hint="with the file rbee.pyz, `python3 rbee.pyz install` does it",
        )
    file = root / "dist" / "rbee.pyz"
    if is_outdated(file, root):
        report(f"Building {file}")
        _build(root, report, builder)
    return file


def interpreter() -> str:
    """Return the Python that runs this, and never a venv's: that may be removed, and the file needs nothing of it."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return str(Path(sys.base_exec_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


def is_outdated(file: Path, root: Path) -> bool:
    """Whether a file is missing, or was made before a source of the checkout at `root` became what it is.

    That is when the source's inode changed (ctime): what comes out of an archive or was renamed has an old mtime.
    """
    try:
        made = file.stat().st_mtime_ns
    except OSError:
        return True
    sources = [root / "shiv.toml", *(root / "rbee").rglob("*"), *(root / "build").rglob("*")]
    return any(
        source.stat().st_ctime_ns > made
        for source in sources
        if source.is_file() and source.parent.name != "__pycache__"
    )


def _build(root: Path, report: Callable[[str], None], builder: Builder | None) -> None:
    # Not by .venv's Python: the script makes .venv complete, and goes on in it.
    command = [interpreter(), str(root / "build" / "zipapp.py")]
    lines = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=None if builder is None else 0,
    ) as build:
        if builder is not None:
            builder.started(build.pid)
        assert build.stderr is not None
        for line in map(str.rstrip, build.stderr):
            lines.append(line)
            report(line)
    if builder is not None:
        builder.ended()
    if build.returncode:
        said = [line.removeprefix("rbee: ") for line in lines if line.startswith("rbee: ")]
        reason = f": {said[-1]}" if said else f" (exit code {build.returncode})"
        raise StorageError(
            f"{root / 'dist' / 'rbee.pyz'} could not be built{reason}", hint="what was said above may help"
        )
