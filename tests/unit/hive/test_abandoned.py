"""What a download left that was killed is resumed for a month, and then removed; nothing else is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.download.partial_file import PartialFile
from rbee.hive.models import abandoned

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400


def part(models: Path, name: str, days: float) -> Path:
    path = models / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    path.with_name(f"{path.name}.etag").write_text('"x"')
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


@pytest.mark.parametrize(
    "name", ["hf/o/r/m.gguf.part", "hf/o/r/sub/m-00001-of-00002.gguf.part", "file/home/bee/m.gguf.part"]
)
def test_what_nobody_goes_on_with_is_removed_with_its_folders(tmp_path: Path, name: str) -> None:
    left = part(tmp_path, name, 31)
    abandoned.remove(tmp_path, time.time())
    assert not left.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_may_be_resumed_stays_and_so_do_files_of_others(tmp_path: Path) -> None:
    kept = [
        part(tmp_path, "hf/o/r/new.gguf.part", 29),
        part(tmp_path, "hf/o/r/notes.part", 400),
        part(tmp_path, "other/m.gguf.part", 400),
        part(tmp_path, "m.gguf.part", 400),
        part(tmp_path, "hf/o/r/whole.gguf", 400),
    ]
    gone = part(tmp_path, "hf/o/r/old.gguf.part", 31)
    abandoned.remove(tmp_path, time.time())
    assert all(path.exists() for path in kept)
    assert not gone.exists()
    assert not gone.with_name(f"{gone.name}.etag").exists()


def test_what_is_being_fetched_is_not_removed_however_old_it_is(tmp_path: Path) -> None:
    held = part(tmp_path, "hf/o/r/m.gguf.part", 31)
    with PartialFile(held.with_name("m.gguf")) as fetch:
        assert fetch.lock()
        abandoned.remove(tmp_path, time.time())
        assert held.exists()
    abandoned.remove(tmp_path, time.time())
    assert not held.exists()


def test_a_folder_of_models_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    abandoned.remove(tmp_path / "none", time.time())
