"""`rbee uninstall` as a process: what it removes, and what it leaves alone and names."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.process.keeper.test_install import AS_FILE, CONFIG, LINKS, MODELS, PROGRAM, UNITS, User, installed, refused

if TYPE_CHECKING:
    from pathlib import Path

STATE, CACHE, MODEL = ".rbee/token", ".cache/rbee/engine/file", f"{MODELS}/hf/o/r/m.gguf"


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def uninstall(user: User, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", AS_FILE, str(user.file), "uninstall", *options],
        env=user.env, cwd=user.cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


def put(user: User, *names: str) -> None:
    for name in names:
        (user.home / name).parent.mkdir(parents=True, exist_ok=True)
        (user.home / name).write_text("#" * 100)


def test_what_install_wrote_goes_and_nothing_else(user: User) -> None:
    put(user, ".local/bin/other", ".config/other", f"{UNITS}/other.service")
    before = user.tree()
    installed(user.install("--systemd"))
    wants = user.home / UNITS / "default.target.wants"
    wants.mkdir()
    (wants / "rbee-hive.service").symlink_to(user.home / UNITS / "rbee-hive.service")
    told = installed(uninstall(user))
    assert user.tree() == before
    assert not (user.home / MODELS).exists()
    assert not (user.home / CONFIG).parent.exists()
    for name in (PROGRAM, *(f".local/bin/{link}" for link in LINKS), f"{UNITS}/rbee-queen.service", CONFIG):
        assert f"  {user.home / name}\n" in told
    assert "Kept" not in told
    assert installed(uninstall(user)) == f"Nothing of rbee is installed in {user.home / '.local/bin'}\n"


@pytest.mark.parametrize(
    ("options", "stays"),
    [
        ([], {CONFIG, MODEL, STATE, CACHE}),
        (["--models"], {CONFIG, STATE, CACHE}),
        (["--state"], {CONFIG, MODEL, CACHE}),
        (["--models", "--state"], {CONFIG, CACHE}),
        (["--all"], set()),
    ],
)
def test_models_and_state_go_only_when_told(user: User, options: list[str], stays: set[str]) -> None:
    installed(user.install())
    put(user, CONFIG, MODEL, STATE, CACHE)
    told = installed(uninstall(user, *options))
    assert set(user.tree()) == stays
    rows = [
        (CONFIG, CONFIG, "all"),
        (MODEL, MODELS, "models"),
        (STATE, ".rbee", "state"),
        (CACHE, ".cache/rbee", "all"),
    ]
    for name, folder, option in rows:
        line = told.partition(f"{user.home / folder} (")[2].partition("\n")[0]
        assert line.endswith(f"--{option} removes it") is (name in stays)


def test_a_folder_of_the_user_is_never_removed(user: User, tmp_path: Path) -> None:
    """It may hold other things."""
    names = ("RBEE_HOME", "RBEE_CACHE", "RBEE_PATHS_MODELS_DIR", "RBEE_CACHE_DIR")
    user.env |= {name: str(tmp_path / name) for name in names}
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    told = installed(uninstall(user, "--all", "--models", "--state"))
    for name in names:
        assert (tmp_path / name / "file").exists()
        assert f"yours: rm -r {tmp_path / name}\n" in told


def test_what_a_link_leads_to_is_the_users(user: User, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "of-another-program.gguf").touch()
    (user.home / MODELS).parent.mkdir(parents=True)
    (user.home / MODELS).symlink_to(tmp_path / "shared")
    told = installed(uninstall(user, "--all"))
    assert (tmp_path / "shared" / "of-another-program.gguf").exists()
    assert f"yours: rm -r {user.home / MODELS}\n" in told


def test_a_cache_folder_that_is_relative_is_ignored(user: User) -> None:
    """As a checkout of rbee would be in the folder beside it."""
    user.env["XDG_CACHE_HOME"] = "."
    (user.cwd / "rbee").mkdir()
    (user.cwd / "rbee" / "work").touch()
    put(user, CACHE)
    installed(uninstall(user, "--all"))
    assert (user.cwd / "rbee" / "work").exists()
    assert not (user.home / CACHE).exists()


def test_foreign_programs_of_these_names_stay(user: User) -> None:
    put(user, PROGRAM, ".local/bin/rbee-hive", f"{UNITS}/rbee-hive.service")
    before = user.tree()
    assert installed(uninstall(user, "--all")).startswith("Nothing of rbee is installed")
    assert user.tree() == before


def test_nothing_is_removed_while_a_daemon_runs(user: User, daemons: Any) -> None:
    daemon = daemons.start("queen")
    user.env["RBEE_HOME"] = str(daemons.home)
    installed(user.install())
    before = user.tree()
    message, hint = refused(uninstall(user))
    assert message == f"nothing was removed: the queen (pid {daemon.process.pid}) still runs"
    assert hint == "`rbee down` ends it; then try again"
    installed(user.install("--systemd"))
    assert refused(uninstall(user))[1].startswith("`systemctl --user disable --now rbee-queen` ends it")
    assert set(before) <= set(user.tree())


def test_for_all_users(user: User, tmp_path: Path) -> None:
    prefix = tmp_path / "root"
    installed(user.install("--system", "--prefix", str(prefix)))
    (prefix / "var/lib/rbee/models/hf").mkdir()
    told = installed(uninstall(user, "--system", "--prefix", str(prefix)))
    assert str(prefix / "usr/local/bin/rbee") in told
    assert [path for path in prefix.rglob("*") if path.is_file() or path.is_symlink()] == []
    assert str(prefix / "var/lib/rbee/models") in told
    assert refused(uninstall(user, "--prefix", "x"), 2)[0] == "--prefix goes with --system"
