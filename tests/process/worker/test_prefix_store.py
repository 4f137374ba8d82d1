"""Kept prompts: never a wrong byte of one, whatever becomes of the worker, the disk and the files."""

from __future__ import annotations

import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.prefix_store import disk_room, part_file
from rbee.worker.prefix_store import store as store_module
from rbee.worker.prefix_store.disk_folder import DiskFolder
from rbee.worker.prefix_store.part_file import PartName
from rbee.worker.prefix_store.store import PrefixStore
from tests.kit import disk as small_disk
from tests.kit.prefixes import MODEL, flush, prompt, put_all, restored, state
from tests.kit.samples import samples
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY_DISK = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def root() -> Iterator[Path]:
    """A cache folder in memory: what a disk does when it syncs is not asked here."""
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK) as folder:
        yield Path(folder) / "prefixes"


@pytest.fixture
def opened(root: Path) -> Iterator[Callable[..., PrefixStore]]:
    """Opens stores, as workers of a model do."""
    stores = []

    def open_store(
        block: int | None = 8, ram: int = 0, disk: int = 100_000_000, model: bytes = MODEL, **more: Any
    ) -> PrefixStore:
        stores.append(PrefixStore(block=block, ram_bytes=ram, disk=DiskFolder(root, model, disk), **more))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.part"))


def used(root: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in root.glob("*/*.part"))


@pytest.mark.parametrize("block", [8, None])
def test_what_is_put_is_there_again_in_a_new_process(opened: Callable[..., PrefixStore], block: int | None) -> None:
    store = opened(block, ram=10_000)
    assert store.longest(b"", prompt(0)) == 0
    put_all(store, b"", prompt(0))
    assert restored(store, b"", prompt(0)) == 40
    assert store.missing(b"", prompt(0)) == []
    store.close()
    again = opened(block)
    assert again.longest(b"", prompt(0)) == 40
    assert restored(again, b"", [*prompt(0), 1, 2, 3]) == 40
    assert restored(again, b"", prompt(0)[:39]) == (32 if block else 0)
    assert restored(again, b"", prompt(1)) == (8 if block else 0)
    assert restored(again, b"salt", prompt(0)) == 0
    assert again.missing(b"", prompt(1, 44)) == ([(8, 16), (16, 24), (24, 32), (32, 40)] if block else [(0, 44)])
    figures = again.figures()
    assert (figures.ram_bytes, figures.from_ram, figures.damaged) == (0, 0, 0)
    assert figures.from_disk == (10 if block else 1)
    assert figures.disk_bytes > 500
    assert (figures.hits, figures.misses) == ((4, 1) if block else (2, 3))


def test_it_is_put_on_the_disk_at_once_and_only_its_user_may_read_it(
    opened: Callable[..., PrefixStore], root: Path
) -> None:
    store = opened(ram=1_000_000)
    put_all(store, b"", prompt(0))
    flush(store)
    assert len(files(root)) == 5
    for path in (root, *root.glob("**/*")):
        assert path.name == "CACHEDIR.TAG" or path.stat().st_mode & 0o077 == 0
    assert not list(root.glob("*/.new-*"))


def test_what_is_no_part_is_refused(opened: Callable[..., PrefixStore]) -> None:
    for block, start, end in (
        (8, 0, 9),
        (8, 4, 12),
        (8, 40, 48),
        (8, -8, 0),
        (None, 8, 16),
        (None, 0, 41),
        (None, 0, 0),
    ):
        with pytest.raises(ValueError, match="are no part"):
            opened(block).put(b"", prompt(0), start, end, b"")


def test_without_a_disk_ram_is_all_there_is() -> None:
    store = PrefixStore(block=8, ram_bytes=3000, disk=None)
    for number in (0, 2):
        put_all(store, b"", prompt(number))
    # What was used last stays, and of that the beginning.
    assert restored(store, b"", prompt(2)) == 40
    assert restored(store, b"", prompt(0)) == 0
    put_all(store, b"", prompt(3))
    assert store.longest(b"", prompt(3)) >= 8
    assert store.longest(b"", prompt(2)) >= 8
    store.close()


def test_it_gives_ram_back_where_others_need_it(
    opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(store_module, "IDLE_SECONDS", 0.01)
    spare = [1_000_000]
    store = opened(ram=100_000, spare_ram=lambda: spare[0])
    put_all(store, b"", prompt(0))
    flush(store)
    before = store.figures().ram_bytes
    assert before == 2500
    spare[0] = -1000
    wait_until(lambda: store.figures().ram_bytes <= before - 1000)
    spare[0] = 1_000_000
    assert restored(store, b"", prompt(0)) == 40


def test_workers_of_one_model_find_what_the_other_has_put(
    opened: Callable[..., PrefixStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOOK_SECONDS", 0.01)
    one, two, other = opened(), opened(), opened(model=bytes(16))
    put_all(one, b"", prompt(0))
    wait_until(lambda: restored(two, b"", prompt(0)) == 40)
    assert restored(other, b"", prompt(0)) == 0


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << at % 8
    path.write_bytes(content)


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_another(path: Path) -> None:
    shutil.copy(max(other for other in path.parent.iterdir() if other != path), path)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda path: os.truncate(path, path.stat().st_size - 1),
    "in its header": lambda path: os.truncate(path, 60),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "of another version": lambda path: path.write_bytes(path.read_bytes().replace(b"kv\n\1", b"kv\n\2")),
    "a pipe": become_pipe,
    "a link": become_link,
    "a folder": become_folder,
    "another part": become_another,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_is_not_what_was_written_is_dropped(
    opened: Callable[..., PrefixStore], root: Path, what: str
) -> None:
    store = opened(None)
    for number in (0, 2):
        put_all(store, b"", prompt(number))
    flush(store)
    (path,) = [path for path in files(root) if restored(store, b"", prompt(0)) and path == files(root)[0]]
    DAMAGE[what](path)
    assert sorted(restored(store, b"", prompt(number)) for number in (0, 2)) == [0, 40]
    assert store.figures().damaged == (what != "gone")
    # It is kept anew.
    for number in (0, 2):
        put_all(store, b"", prompt(number))
    flush(store)
    if what != "a folder":
        assert [restored(store, b"", prompt(number)) for number in (0, 2)] == [40, 40]
        assert [restored(opened(None), b"", prompt(number)) for number in (0, 2)] == [40, 40]


def test_a_flipped_bit_is_noticed_wherever_it_is(opened: Callable[..., PrefixStore], root: Path) -> None:
    store = opened()
    put_all(store, b"", prompt(0))
    flush(store)
    sound = {path: path.read_bytes() for path in files(root)}
    dice = random.Random(0)
    for _ in range(300):
        path = dice.choice(list(sound))
        name = PartName.parse(path.name)
        assert name is not None
        flip(path, dice.randrange(1 << 20))
        with pytest.raises(part_file.DamagedPartError):
            part_file.read(path, MODEL, name)
        path.write_bytes(sound[path])
        assert part_file.read(path, MODEL, name).end == name.end
    flip(path, 1000)
    assert restored(opened(), b"", prompt(0)) < 40
    assert len(files(root)) == 4


def test_files_of_another_model_engine_or_version_are_not_used(opened: Callable[..., PrefixStore], root: Path) -> None:
    store = opened()
    put_all(store, b"", prompt(0))
    flush(store)
    other = bytes(16)
    shutil.copytree(root / MODEL.hex(), root / other.hex())
    assert restored(opened(model=other), b"", prompt(0)) == 0
    assert restored(opened(), b"", prompt(0)) == 40


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "use", "use", "reopen", "other", "evict", "damage", "flush"]),
        st.integers(0, 5),
        st.integers(3, 30),
    ),
    max_size=25,
)


@pytest.mark.parametrize("block", [8, None])
@given(OPERATIONS, st.sampled_from([0, 4000, 100_000]), st.sampled_from([40_000, 200_000]))
@samples(10)
def test_whatever_happens_only_what_was_put_is_found(
    block: int | None, operations: list[tuple[str, int, int]], ram: int, disk: int
) -> None:
    """The model is the state itself, which all tokens before it tell."""
    with tempfile.TemporaryDirectory(dir=MEMORY_DISK) as folder:
        root = Path(folder) / "prefixes"
        stores = [PrefixStore(block=block, ram_bytes=ram, disk=DiskFolder(root, MODEL, disk)) for _ in range(2)]
        put = set()
        for what, number, length in operations:
            tokens, salt = [*prompt(number, 8 + length)], bytes(number % 2)
            if what == "put":
                put_all(stores[0], salt, tokens, 3000)
                put |= {(salt, *tokens[:end]) for end in range(len(tokens) + 1)}
            elif what == "use":
                for store in stores:
                    assert (salt, *tokens[: restored(store, salt, tokens, 3000)]) in {*put, (salt,)}
            elif what == "reopen":
                stores.pop(0).close()
                stores.append(PrefixStore(block=block, ram_bytes=ram, disk=DiskFolder(root, MODEL, disk)))
            elif what == "other":
                stores.reverse()
            elif what == "flush":
                flush(stores[0])
                assert used(root) <= disk
            elif there := files(root):
                path = there[number % len(there)]
                if what == "evict":
                    path.unlink(missing_ok=True)
                elif path.exists():
                    flip(path, length * 100)
        for store in stores:
            store.close()


def test_what_was_used_longest_ago_goes_and_of_a_prompt_its_end(
    opened: Callable[..., PrefixStore], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(disk=40 * 4096)
    for number in (0, 2, 4):
        put_all(store, b"", prompt(number))
    flush(store)
    old = time.time() - 10_000
    for path in files(root):
        os.utime(path, (old, old))
    monkeypatch.setattr(store_module, "LOOK_SECONDS", 0.0)
    again = opened(disk=40 * 4096)
    assert restored(again, b"", prompt(2)) == 40
    wait_until(lambda: sum(path.stat().st_mtime > old + 1 for path in files(root)) == 5)
    for number in range(10, 22, 2):
        put_all(again, b"", prompt(number))
    flush(again)
    assert used(root) <= 40 * 4096
    assert restored(again, b"", prompt(2)) == 40
    assert min(restored(again, b"", prompt(number)) for number in (0, 4)) < 40
    assert restored(again, b"", prompt(20)) == 40
    # Not its beginning, without which the rest is of no use.
    for number in range(30, 60, 2):
        put_all(again, b"", prompt(number))
        flush(again)
    starts = {path.name.split("-")[1] for path in files(root)}
    assert "0" in starts
    assert used(root) <= 40 * 4096


def test_several_models_share_one_bound_and_nothing_else_is_touched(
    opened: Callable[..., PrefixStore], root: Path
) -> None:
    stores = [opened(disk=400_000, model=bytes([number]) * 16) for number in range(3)]
    foreign = [root / "notes.txt", root / ("ab" * 16), root / MODEL.hex()]
    foreign[0].write_bytes(bytes(500_000))
    foreign[1].mkdir()
    (foreign[1] / "thesis.tex").write_bytes(bytes(500_000))
    (foreign[2]).symlink_to("/")

    def fill(store: PrefixStore) -> None:
        for number in range(30):
            put_all(store, b"", prompt(2 * number), 4000)
            flush(store)

    threads = [threading.Thread(target=fill, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 300_000 < used(root) <= 400_000
    assert (foreign[1] / "thesis.tex").stat().st_size == foreign[0].stat().st_size == 500_000
    assert foreign[2].is_symlink()


def test_what_a_killed_worker_has_left_goes_in_time(opened: Callable[..., PrefixStore], root: Path) -> None:
    store = opened()
    left = [root / MODEL.hex() / f"{disk_room.UNFINISHED}{number}" for number in range(2)]
    for path in left:
        path.write_bytes(b"half")
    empty = [root / (name * 16) for name in ("ab", "cd", "notes")]
    for path in empty:
        path.mkdir()
    for path in (left[0], empty[0], empty[2]):
        os.utime(path, (1, 1))
    put_all(store, b"", prompt(0))
    flush(store)
    assert [path.exists() for path in left + empty] == [False, True, False, True, True]


def test_a_worker_that_is_killed_at_any_moment_leaves_nothing_wrong(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    root, dice, found = tmp_path / "prefixes", random.Random(0), 0
    for _ in range(30 if pytestconfig.getoption("full") else 3):
        # Twice as many children as kills of one at a time: they write, and make room, beside each other.
        writers = [
            subprocess.Popen([sys.executable, "-m", "tests.kit.prefixes", str(root)], cwd=ROOT, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        while not files(root):
            assert [writer.poll() for writer in writers] == [None, None]
            time.sleep(0.005)
        for writer in writers:
            time.sleep(dice.uniform(0, 0.15))
            writer.kill()
            assert writer.communicate()[1] == b""
        store = PrefixStore(block=8, ram_bytes=0, disk=DiskFolder(root, MODEL, 3_000_000))
        found += sum(restored(store, b"", prompt(number), 20_000) for number in range(1040))
        assert used(root) <= 3_000_000
        figures = store.figures()
        assert figures.damaged == 0
        store.close()
    assert found > 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    small_disk.mount(tmp_path, "size=4m")
    yield tmp_path
    small_disk.unmount(tmp_path)


@pytest.mark.parametrize("keeps_free", [True, False])
def test_on_a_full_disk_nothing_is_kept_and_that_is_said_once(
    small: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, keeps_free: bool
) -> None:
    if not keeps_free:
        monkeypatch.setattr(disk_room, "LEAST_FREE", -(1 << 30))  # as where another program takes the rest meanwhile
    store = PrefixStore(block=None, ram_bytes=0, disk=DiskFolder(small / "prefixes", MODEL, 1 << 40))
    for number in range(12):
        put_all(store, b"", prompt(2 * number), 500_000)
        flush(store)
    assert restored(store, b"", prompt(22), 500_000) == (40 if keeps_free else 0)
    if keeps_free:
        assert os.statvfs(small).f_bavail * os.statvfs(small).f_frsize >= 0.05 * (4 << 20)
    assert len(caplog.messages) == (not keeps_free)
    assert not list(small.glob("prefixes/*/.new-*"))
    # What others put there pushes it out, and once they are gone it is kept again.
    monkeypatch.setattr(disk_room, "LEAST_FREE", 2_000_000_000)
    caplog.clear()
    filling = small / "filling"
    with pytest.raises(OSError, match="No space"):
        filling.write_bytes(bytes(4 << 20))
    put_all(store, b"", prompt(50), 500_000)
    flush(store)
    filling.unlink()
    put_all(store, b"", prompt(52), 500_000)
    flush(store)
    assert restored(store, b"", prompt(52), 500_000) == 40
    store.close()


def test_files_that_may_not_be_so_large_are_not_kept(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = PrefixStore(block=None, ram_bytes=0, disk=DiskFolder(root, MODEL, 1 << 30))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        for number in range(3):
            put_all(store, b"", prompt(2 * number), 200_000)
            flush(store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert not list(root.glob("*/*"))
    store.close()


def test_a_cache_that_somebody_empties_is_filled_again(
    opened: Callable[..., PrefixStore], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LOOK_SECONDS", 0.01)
    store = opened()
    put_all(store, b"", prompt(0))
    flush(store)
    shutil.rmtree(root)
    assert restored(store, b"", prompt(0)) == 0
    wait_until(lambda: len(store.missing(b"", prompt(0))) == 5)
    put_all(store, b"", prompt(0))
    flush(store)
    assert restored(store, b"", prompt(0)) == 40
    assert len(files(root)) == 5


def test_a_folder_of_somebody_else_is_not_used(root: Path) -> None:
    folder = root / MODEL.hex()
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(PermissionError):
        DiskFolder(root, MODEL, 1000)
    folder.rmdir()
    folder.symlink_to("/tmp")
    with pytest.raises(OSError):  # noqa: PT011 (as the system says)
        DiskFolder(root, MODEL, 1000)


def test_a_part_below_the_header_is_none(root: Path) -> None:
    folder = root / MODEL.hex()
    folder.mkdir(parents=True, mode=0o700)
    for size in (0, part_file.HEADER_BYTES - 1):
        (folder / f"{'0' * 32}-0-8-{size}.part").write_bytes(bytes(size))
    disk = DiskFolder(root, MODEL, 1_000_000)
    assert disk.read(bytes(16)) is None
    assert state(b"", [1], 0, 1) != b""
