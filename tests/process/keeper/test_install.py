"""`rbee install` as a process: what it puts where, what it leaves alone, and what it says when it cannot."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rbee import __version__
from rbee.keeper.install.layout import LINKS

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
AS_FILE = "import sys; sys.argv = sys.argv[1:]; from rbee.entry import main; sys.exit(main())"
"""Runs the checkout's code as the file that the first argument names."""
STARTS = "print('rbee {version}')"
PROGRAM, CONFIG, MODELS = ".local/bin/rbee", ".config/rbee/config.toml", ".local/share/rbee/models"
UNITS = ".config/systemd/user"
ODD = "we ird $HOME %h \"q\" 'a' \\n ü;"


def make_file(path: Path, version: str = __version__, code: str = STARTS) -> Path:
    """Make what a start of rbee.pyz and `rbee install` see of it: an archive behind a first line, with its comment."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("__main__.py")
        member.comment = f"rbee.pyz {version}".encode()
        archive.writestr(member, code.format(version=version))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"#!/usr/bin/env python3\n" + buffer.getvalue())
    path.chmod(0o755)
    return path


class User:
    """Someone with a home folder and a file rbee.pyz."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.file = make_file(folder / "downloads" / "rbee.pyz")
        self.env = os.environ | {"HOME": str(self.home), "SHELL": "/bin/bash", "PYTHONPATH": str(ROOT)}
        self.cwd = folder

    def install(self, *options: str | bytes, **process: Any) -> subprocess.CompletedProcess[str]:
        """Run `rbee install` of the file."""
        command = [sys.executable, "-c", AS_FILE, str(self.file), "install", *options]
        return subprocess.run(
            command, env=self.env, cwd=self.cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            **process,
        )  # fmt: skip

    def tree(self) -> dict[str, Any]:
        """Return everything in the home folder: path → content, or what a link says."""
        return {
            str(path.relative_to(self.home)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in self.home.rglob("*")
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def user(tmp_path: Path) -> User:
    return User(tmp_path)


def installed(done: subprocess.CompletedProcess[str]) -> str:
    """Check that it succeeded; returns what it told."""
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


def refused(done: subprocess.CompletedProcess[str], code: int = 1) -> tuple[str, str]:
    """Check that it failed as errors do; returns message and hint."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    message, _, hint = done.stderr.partition("\nhint: ")
    assert message.startswith("rbee: ")
    assert "Traceback" not in done.stderr
    return message.removeprefix("rbee: "), hint.strip()


def test_everything_is_installed(user: User) -> None:
    told = installed(user.install())
    tree = user.tree()
    assert set(tree) == {PROGRAM, CONFIG, *(f".local/bin/{link}" for link in LINKS)}
    assert tree[PROGRAM] == user.file.read_bytes()
    assert {tree[f".local/bin/{link}"] for link in LINKS} == {"rbee"}, "relative: the folder may be moved"
    assert (user.home / PROGRAM).stat().st_mode & 0o7777 == 0o755
    assert not any(tomllib.loads(tree[CONFIG].decode()).values()), "it holds defaults only"
    assert (user.home / MODELS).is_dir()
    for path in (PROGRAM, CONFIG, MODELS):
        assert str(user.home / path) in told
    assert 'rbee infer --prompt "Once upon a time"' in told
    assert "systemctl" not in told


def test_a_second_installation_is_harmless(user: User) -> None:
    installed(user.install())
    before = user.tree()
    (user.home / ".bashrc").write_text('export PATH="$HOME/.local/bin:$PATH"\n')
    told = installed(user.install())
    assert f"Installed rbee {__version__} again" in told
    assert "Next steps" not in told
    assert "~/.bashrc adds it for new ones" in told
    assert ">>" not in told
    assert user.tree() == before | {".bashrc": b'export PATH="$HOME/.local/bin:$PATH"\n'}


def test_services_of_an_earlier_installation_are_named(user: User) -> None:
    installed(user.install("--systemd"))
    told = installed(user.install())
    for role in ("hive", "queen"):
        assert f"{user.home / UNITS}/rbee-{role}.service (already there; unchanged)" in told
    assert "rbee up" not in told


def test_an_update_keeps_the_users_files(user: User) -> None:
    make_file(user.home / PROGRAM, "0.0.1")
    (user.home / CONFIG).parent.mkdir(parents=True)
    (user.home / CONFIG).write_text("[worker]\nslots = 2\n")
    (user.home / ".local/bin/other").write_text("another program")
    told = installed(user.install())
    assert f"Installed rbee {__version__} in place of 0.0.1" in told
    assert f"{CONFIG} (already there; unchanged)" in told
    tree = user.tree()
    assert tree[PROGRAM] == user.file.read_bytes()
    assert tree[CONFIG] == b"[worker]\nslots = 2\n"
    assert tree[".local/bin/other"] == b"another program"


def test_settings_that_are_a_link_stay_a_link(user: User, tmp_path: Path) -> None:
    (tmp_path / "dotfiles.toml").write_text("")
    (user.home / CONFIG).parent.mkdir(parents=True)
    (user.home / CONFIG).symlink_to(tmp_path / "dotfiles.toml")
    installed(user.install())
    assert (user.home / CONFIG).readlink() == tmp_path / "dotfiles.toml"
    assert (tmp_path / "dotfiles.toml").read_text() == ""


def test_the_installed_file_installs_itself(user: User) -> None:
    installed(user.install())
    (user.home / ".local/bin/rbee-hive").unlink()
    before = (user.home / PROGRAM).stat().st_ino
    user.file = user.home / ".local/bin/rbee-keeper"
    installed(user.install())
    assert (user.home / PROGRAM).stat().st_ino == before, "there was nothing to copy"
    assert user.tree()[".local/bin/rbee-hive"] == "rbee"


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "copy"])
def test_our_own_files_may_be_replaced(user: User, kind: str) -> None:
    """Made by hand: a link from the place to where the file lies, or copies under every name."""
    for name in ("rbee", *LINKS):
        path = user.home / ".local/bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "copy":
            make_file(path, "0.0.1")
        elif kind == "link to a file":
            path.symlink_to(user.file)
        elif name != "rbee":
            path.symlink_to("rbee")
    content = user.file.read_bytes()
    installed(user.install())
    assert not (user.home / PROGRAM).is_symlink()
    assert user.tree()[PROGRAM] == user.file.read_bytes() == content
    assert {user.tree()[f".local/bin/{link}"] for link in LINKS} == {"rbee"}


NAMES = (
    PROGRAM,
    *(f".local/bin/{link}" for link in LINKS),
    f"{UNITS}/rbee-hive.service",
    f"{UNITS}/rbee-queen.service",
)


def put_foreign_file(path: Path, kind: str, user: User) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "file":
            path.write_text("#!/bin/sh\necho mine\n")
        case "empty file":
            path.touch()
        case "link":
            path.symlink_to("/dev/null")  # as `systemctl mask` does it
        case "dangling link":
            path.symlink_to("nowhere")
        case "folder":
            path.mkdir()
        case "half of a program":
            path.write_bytes(user.file.read_bytes()[:100])


@pytest.mark.parametrize("kind", ["file", "empty file", "link", "dangling link", "folder", "half of a program"])
def test_no_foreign_file_is_overwritten(user: User, kind: str) -> None:
    for name in NAMES:
        put_foreign_file(user.home / name, kind, user)
    before = user.tree()
    message, hint = refused(user.install("--systemd"))
    strangers = ", ".join(str(user.home / name) for name in NAMES)
    assert message == f"{strangers} exist already, and were not made by rbee"
    assert hint == "nothing was changed; move them away, then try again"
    assert user.tree() == before


def test_one_foreign_file_is_enough(user: User) -> None:
    put_foreign_file(user.home / NAMES[2], "file", user)
    assert refused(user.install())[0] == f"{user.home / NAMES[2]} exists already, and was not made by rbee"
    assert set(user.tree()) == {NAMES[2]}


@pytest.mark.parametrize("obstacle", [".local", ".local/bin", ".local/share/rbee/models", ".config", ".config/rbee"])
def test_a_file_where_a_folder_is_needed_is_named(user: User, obstacle: str) -> None:
    path = user.home / obstacle
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    message, _ = refused(user.install())
    assert message.startswith(str(path))
    assert "could not be made" in message
    assert user.tree() == {obstacle: b"a file"}


def test_two_installations_at_once_agree(user: User) -> None:
    make_file(user.home / PROGRAM, "0.0.1")
    user.file.write_bytes(b"#!/usr/bin/env python3\n" + os.urandom(8 << 20) + user.file.read_bytes()[23:])
    command = [sys.executable, "-c", AS_FILE, str(user.file), "install", "--systemd"]
    both = [
        subprocess.Popen(command, env=user.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in both:
        _, errors = one.communicate(timeout=50)
        assert one.returncode == 0, errors
    assert user.tree()[PROGRAM] == user.file.read_bytes()
    assert len(user.tree()) == 2 + len(LINKS) + 2


def test_a_file_that_does_not_start_is_reported(user: User) -> None:
    make_file(user.file, code="import sys; sys.exit('rbee: rbee needs CPython 3.11 to 3.14; this is CPython 3.9')")
    message, hint = refused(user.install())
    assert message == (
        f"{user.home / PROGRAM} is installed, but does not start: rbee needs CPython 3.11 to 3.14; this is CPython 3.9"
    )
    assert hint.endswith(f"{sys.executable} {user.home / PROGRAM}")


def test_a_machine_without_python3_in_path_is_reported(user: User, tmp_path: Path) -> None:
    user.env["PATH"] = str(tmp_path)
    (tmp_path / "env").symlink_to("/usr/bin/env")
    message, hint = refused(user.install())
    assert "does not start: " in message
    assert "python3" in message
    assert "`python3` in PATH" in hint


def test_quiet_says_nothing(user: User) -> None:
    assert installed(user.install("--quiet")) == ""
    assert PROGRAM in user.tree()


# What it says about PATH.


def test_a_folder_that_is_not_in_path_is_reported_with_the_commands(user: User) -> None:
    told = installed(user.install())
    assert f"{user.home / '.local/bin'} is not in PATH" in told
    assert '  export PATH="$HOME/.local/bin:$PATH"' in told
    assert ">> ~/.bashrc" in told


def test_a_folder_that_is_in_path_is_not_mentioned(user: User) -> None:
    user.env["PATH"] = f"{user.env['PATH']}:{user.home / '.local/bin'}"
    assert "PATH" not in installed(user.install())


def test_another_rbee_that_comes_first_in_path_is_reported(user: User, tmp_path: Path) -> None:
    other = make_file(tmp_path / "first" / "rbee")
    user.env["PATH"] = f"{other.parent}:{user.home / '.local/bin'}:{user.env['PATH']}"
    assert f"`rbee` still means {other}" in installed(user.install())


# Daemons that run.


@pytest.mark.parametrize(
    ("role", "way_out"), [("queen", "`rbee down` ends it"), ("hive", "end it; the queen then starts")]
)
def test_daemons_of_another_version_are_named(user: User, daemons: Any, role: str, way_out: str) -> None:
    daemon = daemons.start(role)
    user.env["RBEE_HOME"] = str(daemons.home)
    assert "still version" not in installed(user.install()), "it is of the version that was installed"
    make_file(user.file, "9.9.9")
    told = installed(user.install())
    assert f"The running {role} (pid {daemon.process.pid}) is still version {__version__}; {way_out}" in told
    assert f"`systemctl --user restart rbee-{role}` replaces it" in installed(user.install("--systemd"))


# Services.


def test_services_are_written_and_overwritten(user: User) -> None:
    told = installed(user.install("--systemd"))
    assert "systemctl --user enable --now rbee-hive rbee-queen" in told
    unit = user.home / UNITS / "rbee-hive.service"
    assert f'"{user.home / PROGRAM}" "hive"' in unit.read_text()
    assert "Environment" not in unit.read_text()
    assert str(Path(sys.prefix)) not in unit.read_text(), "a venv may be removed"
    text = unit.read_text()
    unit.write_text(text.replace("WatchdogSec=60", "WatchdogSec=1"))
    installed(user.install("--systemd"))
    assert unit.read_text() == text


def test_services_use_the_same_files_as_the_user(user: User, tmp_path: Path) -> None:
    user.env |= {"RBEE_HOME": str(tmp_path / ODD), "RBEE_CACHE": "/cache", "RBEE_WORKER_SLOTS": "2"}
    (tmp_path / "my.toml").write_text("[timeouts]\ndrain = 1000\n")
    installed(user.install("--systemd", "--config", "my.toml"))
    for role in ("hive", "queen"):
        text = (user.home / UNITS / f"rbee-{role}.service").read_text()
        assert f'Environment="RBEE_CONFIG={tmp_path / "my.toml"}"\n' in text
        assert 'Environment="RBEE_CACHE=/cache"\n' in text
        assert text.count("Environment=") == 3
        assert "TimeoutStopSec=1040" in text, "1000 + 30 + a margin"


def test_a_home_that_systemd_cannot_name_is_refused_before_anything_is_changed(user: User) -> None:
    user.env["RBEE_HOME"] = os.fsdecode(b"/\xff")
    message, _ = refused(user.install("--systemd"))
    assert message.startswith("no services can be written for systemd: it takes UTF-8 only")
    assert user.tree() == {}
    installed(user.install())


# For all users.


def test_a_prefix_holds_what_the_system_has_below_its_root(user: User, tmp_path: Path) -> None:
    root = tmp_path / "root"
    user.env |= {"RBEE_HOME": "/of/this/user"}
    told = installed(user.install("--system", "--prefix", str(root), "--systemd", umask=0o077))
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == {
        "etc/rbee/config.toml",
        "etc/systemd/user/rbee-hive.service",
        "etc/systemd/user/rbee-queen.service",
        *(f"usr/local/bin/{name}" for name in ("rbee", *LINKS)),
    }
    assert tomllib.loads((root / "etc/rbee/config.toml").read_text())["paths"] == {
        "models_dir": str(root / "var/lib/rbee/models")
    }
    unit = (root / "etc/systemd/user/rbee-hive.service").read_text()
    assert f'Environment="RBEE_CONFIG={root / "etc/rbee/config.toml"}"\n' in unit
    assert "RBEE_HOME" not in unit, "that is of one user"
    assert f"export RBEE_CONFIG={root / 'etc/rbee/config.toml'}" in told
    assert user.tree() == {}
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            wanted = 0o755 if path.is_dir() or path.name == "rbee" else 0o644
            assert path.stat().st_mode & 0o777 == wanted, path


@pytest.mark.parametrize("prefix", [ODD, "./relative", "../up", "~/at home", "two\nlines", "trailing/"])
def test_a_prefix_may_be_any_folder(user: User, tmp_path: Path, prefix: str) -> None:
    user.cwd = tmp_path / "here"
    user.cwd.mkdir()
    installed(user.install("--system", "--prefix", prefix))
    expected = Path(prefix.replace("~", str(user.home)))
    root = Path(os.path.normpath(user.cwd / expected))
    program, config = root / "usr/local/bin/rbee", root / "etc/rbee/config.toml"
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == f"rbee {__version__}\n"
    models = Path(tomllib.loads(config.read_text())["paths"]["models_dir"])
    assert models.is_absolute()
    assert models.samefile(root / "var/lib/rbee/models")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prefix", "/tmp"], "--prefix goes with --system"),
        (["--system", "--prefix", ""], "--prefix: the name of a folder is expected"),
        (["--system", "--prefix", " "], "--prefix: the name of a folder is expected"),
        (["--system", "--prefix", b"/\xff"], "--prefix: the name of a folder must be UTF-8"),
        (["--system", "--prefix"], "--prefix: expected one argument"),
        (["here"], "unexpected argument 'here'"),
    ],
)
def test_wrong_usage(user: User, options: list[str | bytes], message: str) -> None:
    assert refused(user.install(*options), 2)[0] == message
    assert user.tree() == {}


# Where the file comes from.


@pytest.fixture
def checkout(user: User, tmp_path: Path) -> Callable[[str], Path]:
    """Give a function that makes a checkout with a build script of its own; `user.install` then runs from it."""

    def make(script: str) -> Path:
        root = tmp_path / "checkout"
        shutil.copytree(ROOT / "rbee", root / "rbee", ignore=shutil.ignore_patterns("__pycache__", "*.gguf"))
        (root / "build").mkdir()
        (root / "build" / "zipapp.py").write_text(script)
        (root / "shiv.toml").touch()
        user.env["PYTHONPATH"] = str(root)
        user.file = root / "rbee.py"
        return root

    return make


BUILD = """
import pathlib, shutil, sys
print("rbee.pyz: 1 byte")
print("step 1 of 1", file=sys.stderr)
dist = pathlib.Path(__file__).parent.parent / "dist"
dist.mkdir(exist_ok=True)
shutil.copy2({built!r}, dist / "rbee.pyz")
(dist / "rbee.pyz").touch()
"""


def test_a_checkout_builds_the_file_if_needed(user: User, tmp_path: Path, checkout: Callable[[str], Path]) -> None:
    built = user.file
    root = checkout(BUILD.format(built=str(built)))
    told = installed(user.install())
    assert told.startswith(f"Building {root / 'dist/rbee.pyz'}\nstep 1 of 1\nInstalled")
    assert user.tree()[PROGRAM] == built.read_bytes()
    assert "Building" not in installed(user.install()), "nothing has changed since"
    os.utime(root / "dist/rbee.pyz", (1, 1))
    assert "Building" in installed(user.install())
    make_file(built, "9.9.9")
    (root / "rbee" / "new.py").write_text("")
    assert f"Installed rbee 9.9.9 in place of {__version__}" in installed(user.install())


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.stderr.write('rbee: there is no C++ compiler\\nhint: apt install g++\\n'); sys.exit(1)",
         ": there is no C++ compiler"),
        ("import sys; sys.exit(3)", " (exit code 3)"),
    ],
)  # fmt: skip
def test_a_build_that_fails_changes_nothing(
    user: User, checkout: Callable[[str], Path], script: str, reason: str
) -> None:
    make_file(user.home / PROGRAM, "0.0.1")
    before = user.tree()
    root = checkout(script)
    done = user.install("--quiet")
    assert refused(done)[0] == f"{root / 'dist/rbee.pyz'} could not be built{reason}"
    assert user.tree() == before


def test_a_package_without_the_file_is_reported(user: User, checkout: Callable[[str], Path]) -> None:
    shutil.rmtree(checkout("") / "build")
    message, hint = refused(user.install())
    assert message.startswith("there is no rbee.pyz to install")
    assert "python3 rbee.pyz install" in hint
