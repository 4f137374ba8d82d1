"""One daemon of a role per state folder, whatever became of the one before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.daemon import instance, process
from rbee.adapters.daemon.instance import InstanceLock
from rbee.adapters.files import distant_disk
from rbee.errors import AlreadyRunningError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from rbee.adapters.daemon.instance import InstanceLock
place = InstanceLock(Path(sys.argv[1]), "hive")
if len(sys.argv) > 2:
    place.publish(sys.argv[2], "1.2.3", ephemeral=False, started_by="queen")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the place."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=__file__.partition("/tests/")[0],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


def test_a_second_one_is_refused_with_the_firsts_address(tmp_path: Path) -> None:
    with holder(tmp_path, "http://127.0.0.1:9200") as child:
        with pytest.raises(AlreadyRunningError) as caught:
            InstanceLock(tmp_path, "hive")
        assert caught.value.message == f"a hive is already running at http://127.0.0.1:9200 (pid {child.pid})"
        assert caught.value.hint is not None
        assert "RBEE_HOME" in caught.value.hint


def test_a_second_one_is_refused_before_the_first_has_an_address(tmp_path: Path) -> None:
    with holder(tmp_path), pytest.raises(AlreadyRunningError, match=r"a hive is already running$"):
        InstanceLock(tmp_path, "hive")


def test_another_role_and_another_folder_are_free(tmp_path: Path) -> None:
    with holder(tmp_path / "one"):
        InstanceLock(tmp_path / "one", "queen")
        InstanceLock(tmp_path / "two", "hive")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_place_is_free_once_its_holder_has_ended(tmp_path: Path, number: signal.Signals) -> None:
    with holder(tmp_path, "http://127.0.0.1:9200") as child:
        child.send_signal(number)
        child.wait()
        assert instance.find(tmp_path, "hive") is None
        InstanceLock(tmp_path, "hive").publish("http://127.0.0.1:9201", "1", ephemeral=True)
        found = instance.find(tmp_path, "hive")
        assert found is not None
        assert found.url == "http://127.0.0.1:9201"


def test_a_place_is_known_again_by_its_id(tmp_path: Path) -> None:
    ids = []
    for damage in (None, None, b"{", b"\xff" * 600):
        if damage is not None:
            (tmp_path / "hive.lock").write_bytes(damage)
        with holder(tmp_path, "http://127.0.0.1:9200") as child:
            found = instance.find(tmp_path, "hive")
            assert found is not None
            ids.append(found.id)
            child.kill()
            child.wait()
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert all(len(found) == 32 for found in ids)


def test_what_is_published_is_found(tmp_path: Path) -> None:
    with holder(tmp_path, "http://127.0.0.1:9200") as child:
        found = instance.find(tmp_path, "hive")
        assert found is not None
        assert found.identity == process.identify(child.pid)
        assert (found.url, found.version, found.ephemeral, found.started_by) == (
            "http://127.0.0.1:9200",
            "1.2.3",
            False,
            "queen",
        )


def test_of_many_that_start_at_once_one_gets_the_place(tmp_path: Path) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(8)

    def take() -> None:
        barrier.wait()
        try:
            InstanceLock(tmp_path, "hive")
        except AlreadyRunningError:
            outcomes.append("refused")
        else:
            outcomes.append("taken")

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["taken"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"null", b'{"url":"x"}', b"[" * 100_000])
def test_a_spoilt_file_is_nobody_and_in_nobodys_way(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hive.lock").write_bytes(content)
    assert instance.find(tmp_path, "hive") is None
    InstanceLock(tmp_path, "hive").publish("http://x", "1", ephemeral=False)
    assert instance.find(tmp_path, "hive") is not None


def test_a_child_of_the_holder_does_not_inherit_the_place(tmp_path: Path) -> None:
    script = HOLDER.replace(
        'print("held"', 'import subprocess; subprocess.Popen(["/bin/sleep", "5"], stdout=-3); print("held"'
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=__file__.partition("/tests/")[0],
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        child.wait()
        InstanceLock(tmp_path, "hive")


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        InstanceLock(tmp_path / "file", "hive")


def test_the_folder_is_made_private(tmp_path: Path) -> None:
    InstanceLock(tmp_path / "state", "hive")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state/hive.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("kind", "is_known"),
    [("ext4", False), ("tmpfs", False), ("fuse.sshfs", True), ("nfs4", True), ("cifs", True), ("virtiofs", True)],
)
def test_a_file_that_has_another_inode_is_known_by_its_folder_on_distant_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_known: bool
) -> None:
    """As sshfs has it after it was mounted again; elsewhere it is a copy, as of a folder that was restored."""
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/x rw\n"
        f"2 1 {os.major(device)}:{os.minor(device)} / /home rw shared:1 - {kind} server:/home rw\n"
    )
    monkeypatch.setattr(distant_disk, "MOUNTS", mounts)
    folder, other = tmp_path / "state", tmp_path / "other"
    with holder(folder, "http://127.0.0.1:9200"):
        assert instance.find(folder, "hive") is not None
        shutil.copytree(folder, other)
        assert instance.find(other, "hive") is None, "it is another folder's"
        shutil.copy(folder / "hive.lock", tmp_path / "new")
        (tmp_path / "new").replace(folder / "hive.lock")
        assert (instance.find(folder, "hive") is not None) == is_known
