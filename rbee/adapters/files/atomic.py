"""Installs files atomically; one installer per folder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Final, Self

from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UNFINISHED: Final = ".rbee-new-"
"""Prefix of the temporary names under which files are written first."""
COPY_BYTES: Final = 1 << 20


def make_folder(path: Path) -> None:
    """Make a folder and those around it, where they are missing. Raises StorageError."""
    with _explained(path, "made"):
        path.mkdir(parents=True, exist_ok=True)


class AtomicFolder:
    """A folder to install files into, made where it is missing; other installers wait while `with` lasts.

    A file stays under its name until its successor has reached the disk. Raises StorageError.
    """

    def __init__(self, path: Path, wait: Callable[[], None]) -> None:
        """`wait` is called when another process holds the folder."""
        self._path = path
        self._wait = wait

    def __enter__(self) -> Self:
        make_folder(self._path)
        with contextlib.ExitStack() as on_failure, _explained(self._path, "opened"):
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            on_failure.callback(os.close, self._descriptor)
            if self._hold():
                # Nothing else writes here: these are of processes that were killed.
                for path in self._path.glob(f"{UNFINISHED}*"):
                    path.unlink(missing_ok=True)
            on_failure.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._descriptor)

    def copy(self, source: Path, name: str, *, mode: int) -> None:
        """Install a copy of `source` as `name`; replaces a file of that name."""
        with _explained(source, "read"), source.open("rb") as original, self._unfinished(name) as unfinished:
            with unfinished.open("xb") as copy:
                shutil.copyfileobj(original, copy, COPY_BYTES)
                copy.flush()
                os.fchmod(copy.fileno(), mode)
                os.fsync(copy.fileno())
            self._rename(unfinished, name)

    def write(self, name: str, text: str) -> None:
        """Install a text as `name`; replaces a file of that name."""
        with self._unfinished(name) as unfinished:
            _write(unfinished, text)
            self._rename(unfinished, name)

    def add(self, name: str, text: str) -> bool:
        """Install a text as `name` unless something has that name already; returns whether it did."""
        if os.path.lexists(self._path / name):
            return False
        with self._unfinished(name) as unfinished:
            _write(unfinished, text)
            try:
                # Unlike a rename, a link never overwrites.
                os.link(unfinished, self._path / name)
            except FileExistsError:
                return False
            os.fsync(self._descriptor)
        return True

    def link(self, name: str, target: str) -> None:
        """Install a symbolic link as `name`; `target` is relative to the folder."""
        with self._unfinished(name) as unfinished:
            unfinished.symlink_to(target)
            self._rename(unfinished, name)

    def _hold(self) -> bool:
        """Lock the folder, after any other installer; returns False on a file system that has no locks."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._wait()
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _unfinished(self, name: str) -> Iterator[Path]:
        path = self._path / f"{UNFINISHED}{secrets.token_hex(8)}"
        try:
            with _explained(self._path / name, "written"):
                yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _rename(self, unfinished: Path, name: str) -> None:
        unfinished.rename(self._path / name)
        os.fsync(self._descriptor)


def _write(path: Path, text: str) -> None:
    with path.open("xb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _explained(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        hint = "what was there before is unchanged" if done == "written" and os.path.lexists(path) else None
        raise StorageError(f"{path} could not be {done}: {exc.strerror or exc}", hint=hint) from exc
