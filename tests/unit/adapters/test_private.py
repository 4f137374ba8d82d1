from __future__ import annotations

from pathlib import Path

import pytest

from rbee.adapters.files import private


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_folder_that_is_made_is_private(tmp_path: Path) -> None:
    private.make_private(tmp_path / "state/logs/old")
    assert [mode(tmp_path / name) for name in ("state", "state/logs", "state/logs/old")] == [0o700] * 3


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private.make_private(tmp_path)
    private.make_private(tmp_path / "state")
    assert (mode(tmp_path), mode(tmp_path / "state")) == (0o755, 0o700)


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(FileExistsError):
        private.make_private(tmp_path / "state")
    with pytest.raises(NotADirectoryError):
        private.make_private(tmp_path / "state/logs")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/bee/.ssh/key", "~/.ssh/key"),
        ("~/.ssh/key", "~/.ssh/key"),
        ("/home/beekeeper/key", "/home/beekeeper/key"),
        ("/srv/key", "/srv/key"),
    ],
)
def test_a_path_is_shown_as_a_user_types_it(monkeypatch: pytest.MonkeyPatch, path: str, shown: str) -> None:
    monkeypatch.setenv("HOME", "/home/bee")
    assert private.shown(Path(path)) == shown
