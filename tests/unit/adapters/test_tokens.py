"""The swarm's token is made once, kept private, and gives each worker a key of its own."""

from __future__ import annotations

import re
import stat
import threading
from pathlib import Path

import pytest

from rbee.adapters import tokens
from rbee.errors import StorageError

FORM = re.compile(r"rbee_[A-Za-z0-9_-]{43}")


def test_the_first_use_makes_the_token(tmp_path: Path) -> None:
    path = tmp_path / "state/token"
    token = tokens.load_or_create(path)
    assert FORM.fullmatch(token)
    assert path.read_text() == token + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_later_uses_find_it(tmp_path: Path) -> None:
    token = tokens.load_or_create(tmp_path / "token")
    assert tokens.load_or_create(tmp_path / "token") == token
    assert tokens.read(tmp_path / "token") == token


def test_no_two_tokens_are_alike(tmp_path: Path) -> None:
    assert len({tokens.load_or_create(tmp_path / str(number)) for number in range(20)}) == 20


def test_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    tokens.load_or_create(tmp_path / "token")
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_creators_that_race_agree(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        found.append(tokens.load_or_create(tmp_path / "token"))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {tokens.read(tmp_path / "token")}
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_a_loser_of_the_race_takes_the_winners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    link = tokens.os.link

    def late(source: Path, target: Path) -> None:
        path.write_text("rbee_winner\n")
        link(source, target)

    monkeypatch.setattr(tokens.os, "link", late)
    assert tokens.load_or_create(path) == "rbee_winner"
    assert [found.name for found in tmp_path.iterdir()] == ["token"]


def test_what_a_killed_creator_left_is_in_nobodys_way(tmp_path: Path) -> None:
    import os

    (tmp_path / f"token.{os.getpid()}").write_text("")
    assert FORM.fullmatch(tokens.load_or_create(tmp_path / "token"))


def test_there_may_be_no_token(tmp_path: Path) -> None:
    assert tokens.read(tmp_path / "token") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n", b"\xff\xfe"])
def test_a_spoilt_file_is_an_error_and_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(StorageError):
        tokens.load_or_create(path)
    assert path.read_bytes() == content


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder") as caught:
        tokens.load_or_create(tmp_path)
    hint = caught.value.hint or ""
    assert hint.startswith("move it away, and the next queen makes a new token; RBEE_TOKEN_FILE, ")


def test_a_device_in_its_place_is_not_to_be_deleted() -> None:
    with pytest.raises(StorageError, match=r"^/dev/null is no file, and holds no token$") as caught:
        tokens.read(Path("/dev/null"))
    hint = caught.value.hint or ""
    assert hint.startswith("RBEE_TOKEN_FILE, ")
    assert "delete" not in hint


def test_a_place_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        tokens.load_or_create(tmp_path / "file/token")


def test_a_full_disk_leaves_nothing_and_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tokens.os, "fsync", full)
        with pytest.raises(StorageError, match="the disk is full"):
            tokens.load_or_create(tmp_path / "token")
    assert list(tmp_path.iterdir()) == []
    assert FORM.fullmatch(tokens.load_or_create(tmp_path / "token"))


def test_an_error_does_not_show_the_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"rbee_secret\xff")
    with pytest.raises(StorageError) as caught:
        tokens.read(path)
    assert "secret" not in caught.value.message


def test_a_workers_key_is_stable_and_its_own() -> None:
    key = tokens.worker_key("rbee_t", "w1")
    assert key == tokens.worker_key("rbee_t", "w1")
    assert re.fullmatch(r"rbee_w_[A-Za-z0-9_-]{43}", key)
    assert key != tokens.worker_key("rbee_t", "w2")
    assert key != tokens.worker_key("rbee_u", "w1")
    assert "rbee_t" not in key


def test_the_right_key_matches_and_no_other() -> None:
    assert tokens.matches("rbee_x", "rbee_x")
    for wrong in ("", "rbee_", "rbee_xx", "RBEE_X", "rbee_\udcff", "é"):
        assert not tokens.matches(wrong, "rbee_x")


@pytest.mark.parametrize("content", ["two\nlines", "two words", "a\0b", "bell\a", "x" * 513, "\x7f"])
def test_what_no_header_carries_is_no_token(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content + "\n")
    with pytest.raises(StorageError, match="not a token") as caught:
        tokens.load_or_create(path)
    assert content not in caught.value.message
