"""Files that are put into folders: whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.files.atomic import UNFINISHED, AtomicFolder, make_folder
from rbee.errors import StorageError
from tests.kit import paths
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CHILD = paths.KIT / "placing_child.py"


def never() -> None:
    raise AssertionError("nobody is to be waited for")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder" / "in another"


@pytest.fixture
def copying(tmp_path: Path, folder: Path) -> Iterator[Callable[[], subprocess.Popen]]:
    """Start a process that copies from a pipe, and is in the middle of it by the time that it is given."""
    source = tmp_path / "pipe"
    os.mkfifo(source)
    children, pipes = [], []

    def start() -> subprocess.Popen:
        command = [sys.executable, str(CHILD), str(folder), str(source), "name"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "holding\n"
        pipe = os.open(source, os.O_WRONLY)
        pipes.append(pipe)
        os.write(pipe, b"half of it")
        wait_until(lambda: any(name.startswith(UNFINISHED) for name in names(folder)))
        return child

    yield start
    for pipe in pipes:
        os.close(pipe)
    for child in children:
        child.kill()
        child.communicate()


def test_each_way_to_put_something_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(3 << 20))
    with AtomicFolder(folder, never) as place:
        place.copy(tmp_path / "source", "program", mode=0o755)
        place.link("link", "program")
        place.write("text", "one\n")
        assert place.add("own", "one\n")
    assert (folder / "program").read_bytes() == (tmp_path / "source").read_bytes()
    assert (folder / "program").stat().st_mode & 0o7777 == 0o755
    assert str((folder / "link").readlink()) == "program"
    assert (folder / "text").read_text() == (folder / "own").read_text() == "one\n"
    with AtomicFolder(folder, never) as place:
        place.copy(CHILD, "program", mode=0o700)
        place.link("link", "text")
        place.write("text", "two\n")
        assert not place.add("own", "two\n")
        assert not place.add("link", "two\n")
    assert (folder / "program").read_bytes() == CHILD.read_bytes()
    assert (folder / "program").stat().st_mode & 0o7777 == 0o700
    assert (folder / "link").read_text() == (folder / "text").read_text() == "two\n"
    assert (folder / "own").read_text() == "one\n"
    assert names(folder) == {"program", "link", "text", "own"}


def test_a_link_is_replaced_and_not_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("new")
    (tmp_path / "elsewhere").write_text("stays")
    make_folder(folder)
    for name in ("copied", "written", "linked"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    with AtomicFolder(folder, never) as place:
        place.copy(tmp_path / "source", "copied", mode=0o644)
        place.write("written", "new")
        place.link("linked", "copied")
        assert not place.add("dangling", "new"), "a link that leads nowhere is there too"
    assert {(folder / name).read_text() for name in ("copied", "written", "linked")} == {"new"}
    assert (tmp_path / "elsewhere").read_text() == "stays"
    assert not (tmp_path / "nowhere").exists()


def test_an_installer_that_is_killed_leaves_what_was_there_and_the_next_one_tidies_up(
    folder: Path, copying: Callable[[], subprocess.Popen]
) -> None:
    make_folder(folder)
    (folder / "name").write_text("as it was")
    (folder / ".rbee-own").write_text("another's")
    child = copying()
    child.kill()
    child.wait()
    assert (folder / "name").read_text() == "as it was"
    assert len(names(folder)) == 3
    with AtomicFolder(folder, never) as place:
        place.write("name", "new")
    assert names(folder) == {"name", ".rbee-own"}
    assert (folder / "name").read_text() == "new"


def test_two_take_turns(folder: Path, copying: Callable[[], subprocess.Popen]) -> None:
    first = copying()
    waiting = threading.Event()

    def second() -> None:
        with AtomicFolder(folder, waiting.set) as place:
            place.write("name", "the second")

    thread = threading.Thread(target=second)
    thread.start()
    assert waiting.wait(20)
    assert "name" not in names(folder), "the second one waits"
    assert any(name.startswith(UNFINISHED) for name in names(folder)), "and removes nothing of the first"
    first.kill()
    thread.join(20)
    assert (folder / "name").read_text() == "the second"
    assert names(folder) == {"name"}


def test_an_error_leaves_nothing_half_done_and_lets_go_of_the_folder(folder: Path, tmp_path: Path) -> None:
    with AtomicFolder(folder, never) as place:
        place.write("name", "whole")
    with AtomicFolder(folder, never) as place, pytest.raises(StorageError) as caught:
        place.copy(tmp_path / "missing", "name", mode=0o755)
    assert caught.value.message == f"{tmp_path / 'missing'} could not be read: No such file or directory"
    with AtomicFolder(folder, never) as place, pytest.raises(StorageError) as caught:
        place.copy(tmp_path, "name", mode=0o755)
    assert caught.value.message == f"{tmp_path} could not be read: Is a directory"
    assert names(folder) == {"name"}
    assert (folder / "name").read_text() == "whole"


def test_what_stands_in_the_way_is_named(folder: Path) -> None:
    make_folder(folder.parent)
    folder.write_text("a file")
    with pytest.raises(StorageError) as caught, AtomicFolder(folder, never):
        pass
    assert caught.value.message == f"{folder} could not be made: File exists"
    with pytest.raises(StorageError) as caught:
        make_folder(folder / "deeper")
    assert caught.value.message == f"{folder / 'deeper'} could not be made: Not a directory"
    folder.unlink()
    make_folder(folder / "name")
    with AtomicFolder(folder, never) as place, pytest.raises(StorageError) as caught:
        place.write("name", "text")
    assert caught.value.message == f"{folder / 'name'} could not be written: Is a directory"
    assert caught.value.hint == "what was there before is unchanged"
    assert names(folder) == {"name"}


def test_a_limit_on_the_size_of_files_leaves_what_was_there(folder: Path, tmp_path: Path) -> None:
    """Fails in the middle of a copy, as on a full disk."""
    import resource

    (tmp_path / "source").write_bytes(bytes(1 << 20))
    with AtomicFolder(folder, never) as place:
        place.write("name", "as it was")
    child = subprocess.run(
        [sys.executable, str(CHILD), str(folder), str(tmp_path / "source"), "name"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "could not be written: File too large" in child.stderr
    assert names(folder) == {"name"}
    assert (folder / "name").read_text() == "as it was"
