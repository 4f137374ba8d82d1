"""Where the zipapp's launcher unpacks to."""

from __future__ import annotations

import os
import pwd
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

LAUNCHER = Path(__file__).parents[2] / "build" / "launcher" / "__main__.py"


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Give the launcher's function, as it is in a file that build/zipapp.py has made."""
    made = tmp_path / "launcher.py"
    made.write_text(LAUNCHER.read_text().replace("@ARCHIVE_SIZE@", "0"))
    monkeypatch.chdir(tmp_path)
    for name in ("RBEE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    found: Callable[[], str] = runpy.run_path(str(made))["cache_folder"]
    return found


def test_a_relative_folder_is_the_same_for_the_daemons(
    cache_folder: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBEE_CACHE", "cache")
    assert cache_folder() == str(tmp_path / "cache")
    monkeypatch.chdir("/")
    assert cache_folder() == str(tmp_path / "cache")


@pytest.mark.parametrize("given", [None, "", "relative"])
def test_without_a_folder_of_its_own_the_users_is_taken(
    cache_folder: Callable[[], str], monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    if given is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert cache_folder() == os.path.expanduser("~/.cache/rbee")  # noqa: PTH111 (as the launcher does it)
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == "/elsewhere/rbee"


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_home_there_is_no_folder_called_tilde(
    cache_folder: Callable[[], str | None], monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    entry = pwd.struct_passwd(("bee", "x", 1, 1, "", "/home/bee", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)
    assert cache_folder() == "/home/bee/.cache/rbee"

    def fail(_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", fail)
    assert cache_folder() is None
    monkeypatch.setenv("RBEE_CACHE", "/srv/cache")
    assert cache_folder() == "/srv/cache"
