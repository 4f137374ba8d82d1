"""Whether the files that a worker has loaded are still at their paths."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from rbee.hive.catalogue import file_state
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Files:
    """A file at a path, and another one that takes its place."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.new = folder / "new.gguf"
        self.new.write_bytes(b"GGUF new")
        self.path = folder / "m.gguf"
        self.path.write_bytes(b"GGUF old")
        self.link = folder / "link.gguf"
        self.link.symlink_to(self.path)
        os.utime(self.path, (1_000_000_000, 1_000_000_000))
        wait_until(self._clock_has_moved, "the clock of files has moved: it stands still for some milliseconds")

    def _clock_has_moved(self) -> bool:
        self.new.chmod(0o600)
        return self.new.stat().st_ctime_ns > self.path.stat().st_ctime_ns


def moved(found: Files) -> None:
    found.new.replace(found.path)


def moved_with_its_time(found: Files) -> None:
    os.utime(found.new, (1_000_000_000, 1_000_000_000))
    found.new.replace(found.path)


def rewritten(found: Files) -> None:
    found.path.write_bytes(b"GGUF newer")


def rewritten_with_the_same_size(found: Files) -> None:
    with found.path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")


def appended(found: Files) -> None:
    with found.path.open("ab") as file:
        file.write(b"\0")


def linked(found: Files) -> None:
    found.path.unlink()
    found.path.symlink_to(found.new)


def folder_renamed(found: Files) -> None:
    folder = found.path.parent
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    folder.rename(folder.with_name("aside"))
    other.rename(folder)


def linked_elsewhere(found: Files) -> None:
    found.link.unlink()
    found.link.symlink_to(found.new)


def deleted(found: Files) -> None:
    found.path.unlink()


def link_to_nowhere(found: Files) -> None:
    deleted(found)
    found.path.symlink_to("nowhere")


def link_to_itself(found: Files) -> None:
    deleted(found)
    found.path.symlink_to(found.path)


def a_folder_in_its_place(found: Files) -> None:
    deleted(found)
    found.path.mkdir()


def folder_is_a_file(found: Files) -> None:
    shutil.rmtree(found.path.parent)
    found.path.parent.write_text("a file")


REPLACED = [
    moved,
    moved_with_its_time,
    rewritten,
    rewritten_with_the_same_size,
    appended,
    linked,
    linked_elsewhere,
    folder_renamed,
    deleted,
    link_to_nowhere,
    link_to_itself,
    a_folder_in_its_place,
    folder_is_a_file,
]


@pytest.mark.parametrize("replace", REPLACED)
def test_a_file_that_was_replaced_is_another_one(replace: Callable[[Files], None], tmp_path: Path) -> None:
    found = Files(tmp_path / "models")
    loaded = file_state.states([found.path, found.link])
    assert file_state.are_unchanged(loaded)
    replace(found)
    assert not file_state.are_unchanged(loaded)


def read(found: Files) -> None:
    found.path.read_bytes()


def permitted(found: Files) -> None:
    found.path.chmod(0o400)


def linked_twice(found: Files) -> None:
    found.path.with_name("second.gguf").hardlink_to(found.path)


def moved_and_back(found: Files) -> None:
    found.path.rename(found.path.with_name("x"))
    found.path.with_name("x").rename(found.path)


@pytest.mark.parametrize("use", [read, permitted, linked_twice, moved_and_back])
def test_the_very_file_is_the_same_one(use: Callable[[Files], None], tmp_path: Path) -> None:
    found = Files(tmp_path / "models")
    loaded = file_state.states([found.path, found.link])
    use(found)
    assert file_state.are_unchanged(loaded)


def test_a_share_that_was_mounted_anew_has_the_same_files(tmp_path: Path) -> None:
    """Device and inode differ then, as they may from one look to the next with FUSE."""
    found = Files(tmp_path / "models")
    loaded = [state._replace(device=1, inode=2) for state in file_state.states([found.path])]
    assert file_state.are_unchanged(loaded)
    moved_with_its_time(found)
    assert not file_state.are_unchanged(loaded)


def test_a_file_that_came_to_its_path_counts_by_when_it_came(tmp_path: Path) -> None:
    found = Files(tmp_path / "models")
    before = time.time() - 1
    moved_with_its_time(found)
    changed_at = file_state.changed_at(str(found.path))
    assert changed_at is not None
    assert changed_at > before
    assert file_state.changed_at(str(tmp_path / "none")) is None
    assert file_state.changed_at("nul\0byte") is None
