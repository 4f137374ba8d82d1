"""The store as the settings say, for a model that is told from all others."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.config import CacheSettings
from rbee.adapters.http import metrics
from rbee.worker.prefix_store.figures import figures
from rbee.worker.prefix_store.model_key import BEGINNING, ModelFiles, model_key
from rbee.worker.prefix_store.opening import LEAST_RAM, MOST_RAM, open_store
from tests.kit.prefixes import MODEL, flush, prompt, put_all, restored

if TYPE_CHECKING:
    from pathlib import Path


def settings(folder: Path, **more: int) -> CacheSettings:
    return CacheSettings(dir=str(folder / "prefixes"), **more)


def test_what_is_kept_comes_back_and_is_counted(tmp_path: Path) -> None:
    for is_there in (False, True):
        store = open_store(settings(tmp_path), block=8, model_key=MODEL, memory=1_000_000_000)
        assert store is not None
        assert restored(store, b"", prompt(0)) == (40 if is_there else 0)
        put_all(store, b"", prompt(0))
        flush(store)
        text = metrics.render(*figures(store)).decode()
        for line in (
            'rbee_worker_prefix_bytes{in="ram"} 2500.0',
            'rbee_worker_prefix_bytes{in="disk"} 3000.0',
            f'rbee_worker_prefix_lookups_total{{result="hit"}} {int(is_there)}.0',
            f'rbee_worker_prefix_lookups_total{{result="miss"}} {int(not is_there)}.0',
            f'rbee_worker_prefix_parts_total{{from="disk"}} {5 * is_there}.0',
        ):
            assert line in text
        store.close()


@pytest.mark.parametrize(
    ("ram_mb", "memory", "ram"),
    [(None, 2_000_000_000, 200_000_000), (None, 0, LEAST_RAM), (None, 1 << 40, MOST_RAM), (3, 1 << 40, 3_000_000)],
)
def test_ram_is_a_share_of_what_the_worker_takes(tmp_path: Path, ram_mb: int | None, memory: int, ram: int) -> None:
    store = open_store(CacheSettings(ram_mb=ram_mb, disk_mb=0), block=8, model_key=MODEL, memory=memory)
    assert store is not None
    assert store._ram_bytes == ram
    put_all(store, b"", prompt(0))
    assert restored(store, b"", prompt(0)) == 40
    store.close()
    assert not list(tmp_path.iterdir())


def test_each_can_be_turned_off(tmp_path: Path) -> None:
    assert open_store(settings(tmp_path, ram_mb=0, disk_mb=0), block=8, model_key=MODEL, memory=1) is None
    assert not list(tmp_path.iterdir())
    store = open_store(settings(tmp_path, ram_mb=0), block=8, model_key=MODEL, memory=1)
    assert store is not None
    put_all(store, b"", prompt(0))
    flush(store)
    assert (store.figures().ram_bytes, store.figures().disk_bytes) == (0, 3000)
    store.close()


def test_where_the_disk_cannot_be_used_it_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "prefixes").write_text("in the way")
    store = open_store(settings(tmp_path), block=8, model_key=MODEL, memory=1)
    assert store is not None
    put_all(store, b"", prompt(0))
    assert restored(store, b"", prompt(0)) == 40
    store.close()
    assert [message.partition(":")[0] for message in caplog.messages] == ["prompts are not kept on the disk"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(os.urandom(3 * BEGINNING))
    return path


def with_byte(path: Path, at: int) -> None:
    """Change a byte, and leave the time as it was."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_model_is_told_from_others(model: Path) -> None:
    identity = ModelFiles(model).identity()
    assert ModelFiles(model).identity() == identity
    model.rename(model.with_name("other.gguf"))
    model = model.with_name("other.gguf")
    assert ModelFiles(model).identity() == identity, "where it lies is nothing to it"
    for at in (0, BEGINNING - 1, BEGINNING, 2 * BEGINNING + 4095, 3 * BEGINNING - 1):
        with_byte(model, at)
        assert ModelFiles(model).identity() != identity
        with_byte(model, at)
    assert ModelFiles(model).identity() == identity
    # What the sample does not meet, the time tells, however soon it is.
    os.utime(model, ns=(time.time_ns(), model.stat().st_mtime_ns + 1))
    assert ModelFiles(model).identity() != identity


def test_one_that_was_replaced_while_it_was_loaded_is_never_known_again(model: Path) -> None:
    files = ModelFiles(model)
    content, times = model.read_bytes(), model.stat()
    model.unlink()
    spare = model.with_name("spare")
    spare.write_bytes(b"")
    model.write_bytes(content)
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns + 5))
    assert files.identity() != files.identity()
    model.unlink()
    assert files.identity() != files.identity()
    assert ModelFiles(model).identity() != ModelFiles(model).identity()


def test_each_file_of_a_split_model_counts(tmp_path: Path) -> None:
    paths = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in paths:
        path.write_bytes(path.name.encode())
    before = ModelFiles(paths[0]).identity()
    with_byte(paths[1], 0)
    assert ModelFiles(paths[0]).identity() != before


def test_each_fact_counts() -> None:
    keys = {
        model_key(b"m", facts)
        for facts in ([], [("type_k", 1)], [("type_k", 2)], [("type_v", 1)], [b"engine"], [("type_k", 1), True])
    }
    assert len({*keys, model_key(b"other", [])}) == 7
