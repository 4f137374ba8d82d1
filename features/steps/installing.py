"""Steps that install the program, and use what was installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from pytest_bdd import given, parsers, then, when

from features.lab import overlay
from features.lab.machine import PROGRAM
from features.steps.launching import run_as_nobody
from tests.kit import disk
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.lab.machine import Machine
    from features.lab.seen import Seen

CHECKOUT: Final = Path(__file__).resolve().parents[2]
LINKS: Final = ("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee")
PROGRAMS: Final = ".local/bin"
CONFIG: Final = ".config/rbee/config.toml"
OWN_SETTINGS: Final = "[worker]\nslots = 2\n"
ODD: Final = "we ird $HOME %h \"q\" 'a' ü"
SYSTEM: Final = [*(f"/usr/local/bin/{name}" for name in ("rbee", *LINKS)), "/etc/rbee", "/var/lib/rbee"]


@when("the user runs install")
def _install(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("install")


@when("the user runs install with --systemd")
def _install_services(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("install", "--systemd")


def check_programs(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"rbee", *LINKS}
    assert (folder / "rbee").read_bytes() == PROGRAM.read_bytes()
    assert (folder / "rbee").stat().st_mode & 0o7777 == 0o755
    assert {str((folder / link).readlink()) for link in LINKS} == {"rbee"}


@then("~/.local/bin holds the file as rbee, and its four links")
def _programs(machine: Machine) -> None:
    check_programs(machine.home / PROGRAMS)


@then("~/.config/rbee/config.toml holds the defaults")
def _defaults(machine: Machine) -> None:
    text = (machine.home / CONFIG).read_text()
    assert "# slots = 4 " in text
    assert not any(tomllib.loads(text).values())


@then("~/.local/share/rbee/models is a folder")
def _models(machine: Machine) -> None:
    assert (machine.home / ".local/share/rbee/models").is_dir()


@then("it printed how rbee comes into PATH, and what to do next")
def _instructions(machine: Machine, seen: Seen) -> None:
    told = seen.done.stderr.decode()
    assert f"{machine.home / PROGRAMS} is not in PATH" in told
    (line,) = [line for line in told.splitlines() if line.startswith("  export ")]
    script = f"{line}; command -v rbee-keeper"
    found = subprocess.run(["sh", "-c", script], env=machine.env, capture_output=True, check=True)
    assert found.stdout.decode().strip() == str(machine.home / PROGRAMS / "rbee-keeper")
    assert "rbee infer --prompt" in told


@given("the user has installed rbee")
def _installed(machine: Machine) -> None:
    done = machine.run("install")
    assert done.returncode == 0, done.stderr.decode()


@given("a queen that was started as queen-rbee")
def _queen(machine: Machine, seen: Seen) -> None:
    machine.installed = machine.home / PROGRAMS / "queen-rbee"
    seen.queen = machine.start()
    wait_until(machine.has_queen)


@given("a hive that was started as rbee-hive")
def _hive(machine: Machine, seen: Seen) -> None:
    machine.installed = machine.home / PROGRAMS / "rbee-hive"
    seen.hive = machine.start()
    wait_until(machine.has_hive)


@when("the user runs infer as rbee-keeper")
def _keeper(machine: Machine, seen: Seen) -> None:
    machine.installed = machine.home / PROGRAMS / "rbee-keeper"
    seen.done = machine.run("infer", "--prompt", "Once upon a time")


@then("the worker is of that hive, and was started from the installed file")
def _worker(machine: Machine, seen: Seen) -> None:
    (row,) = machine.workers()
    assert set(machine.daemons()) == {seen.queen.pid, seen.hive.pid, row["pid"]}
    assert machine.processes()[row["pid"]][1] == str(machine.home / PROGRAMS / "rbee-hive")


@then("llm-worker-rbee answers as the worker")
def _as_worker(machine: Machine) -> None:
    machine.installed = machine.home / PROGRAMS / "llm-worker-rbee"
    done = machine.run("--help")
    assert done.returncode == 0
    assert done.stdout.startswith(b"usage: rbee worker")


@given("the user has installed an earlier version, and changed the settings")
def _earlier(machine: Machine) -> None:
    """Only what tells its version is of that earlier file: releases are no part of this repository."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("__main__.py")
        member.comment = b"rbee.pyz 0.0.1"
        archive.writestr(member, "")
    for path, content in ((f"{PROGRAMS}/rbee", buffer.getvalue()), (CONFIG, OWN_SETTINGS.encode())):
        (machine.home / path).parent.mkdir(parents=True)
        (machine.home / path).write_bytes(content)


@then("the settings are as the user left them")
def _own_settings(machine: Machine) -> None:
    assert (machine.home / CONFIG).read_text() == OWN_SETTINGS


@when("the installed program installs itself")
def _itself(machine: Machine, seen: Seen) -> None:
    machine.installed = machine.home / PROGRAMS / "rbee"
    seen.done = machine.run("install")


@when("the user runs install in the checkout that the file was built from")
def _from_checkout(machine: Machine, seen: Seen) -> None:
    # What a build needs lies there; an empty home has nothing of it, and would have the engine compiled.
    cache = os.environ.get("RBEE_CACHE", str(Path.home() / ".cache" / "rbee"))
    seen.done = subprocess.run(
        [sys.executable, "rbee.py", "install"],
        env=machine.env | {"RBEE_CACHE": cache},
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


@pytest.fixture
def own_disk(machine: Machine) -> Iterator[Path]:
    """The folder for programs, on which other steps mount a file system."""
    folder = machine.home / PROGRAMS
    folder.mkdir(parents=True)
    yield folder
    disk.unmount(folder)


@given("the user has installed rbee on a disk of its own")
def _on_own_disk(machine: Machine, own_disk: Path) -> None:
    size = PROGRAM.stat().st_size * 3 // 2
    disk.mount(own_disk, f"size={size}")
    _installed(machine)


@given(parsers.parse("that disk is then {state}"))
def _disk_state(own_disk: Path, state: str) -> None:
    # A full disk is one with too little room for a second file beside the first.
    if state == "read-only":
        disk.remount(own_disk, "ro")


@then("the installed program works, and nothing unfinished is beside it")
def _still_works(machine: Machine) -> None:
    check_programs(machine.home / PROGRAMS)
    machine.installed = machine.home / PROGRAMS / "rbee"
    assert machine.run("--version").returncode == 0


@given("a program of the user's own called rbee-hive in ~/.local/bin")
def _stranger(machine: Machine) -> None:
    path = machine.home / PROGRAMS / "rbee-hive"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")


@then("nothing but that program is there")
def _only_the_stranger(machine: Machine) -> None:
    assert [path.name for path in machine.home.rglob("*") if not path.is_dir()] == ["rbee-hive"]
    assert (machine.home / PROGRAMS / "rbee-hive").read_text() == "#!/bin/sh\n"


@then("systemd takes both units")
def _units(machine: Machine) -> None:
    units = machine.home / ".config/systemd/user"
    assert {path.name for path in units.iterdir()} == {"rbee-hive.service", "rbee-queen.service"}
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    (runtime := machine.home / "runtime").mkdir(mode=0o700)
    done = subprocess.run(
        ["systemd-analyze", "--user", "--man=no", "verify", *units.iterdir()],
        env=machine.env | {"XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.fixture
def system(machine: Machine, tmp_path: Path) -> Path:
    """A folder with /etc, /usr/local and /var/lib as the program sees them in front of the machine's own."""
    layer = tmp_path / "system"
    if reason := overlay.why_not(layer, tmp_path / "scratch"):
        pytest.skip(reason)
    machine.prefix = overlay.prefix(layer, tmp_path / "scratch")
    return layer


@when("root runs install --system")
def _install_system(machine: Machine, system: Path, seen: Seen) -> None:
    seen.system_before = [os.path.lexists(path) for path in SYSTEM]
    seen.done = machine.run("install", "--system")


@then("/usr/local/bin holds the file as rbee, and its four links")
def _system_programs(system: Path, seen: Seen) -> None:
    check_programs(system / "usr/local/bin")
    assert [os.path.lexists(path) for path in SYSTEM] == seen.system_before, "the machine's own folders"


@then("/etc/rbee/config.toml says that models are in /var/lib/rbee/models")
def _system_config(system: Path) -> None:
    config = tomllib.loads((system / "etc/rbee/config.toml").read_text())
    assert config["paths"] == {"models_dir": "/var/lib/rbee/models"}
    assert (system / "var/lib/rbee/models").is_dir()


@then("any user may run and read all of it")
def _for_everyone(system: Path) -> None:
    for name in ("usr/local/bin/rbee", "etc/rbee", "var/lib/rbee", "var/lib/rbee/models"):
        assert (system / name).stat().st_mode & 0o777 == 0o755, name
    assert (system / "etc/rbee/config.toml").stat().st_mode & 0o777 == 0o644


@then("rbee, run from there, looks for models in /var/lib/rbee/models")
def _uses_system(machine: Machine, seen: Seen) -> None:
    machine.installed = Path("/usr/local/bin/rbee")
    assert "models in /var/lib/rbee/models)" in machine.run("detect").stdout.decode()


@when("a user who is not root runs install --system")
def _not_root(machine: Machine, tmp_path: Path, seen: Seen) -> None:
    seen.system_before = [os.path.lexists(path) for path in SYSTEM]
    if os.geteuid() == 0:
        (cache := tmp_path / "cache-of-nobody").mkdir()
        cache.chmod(0o777)
        machine.env["RBEE_CACHE"] = str(cache)
        seen.done = run_as_nobody(machine, tmp_path, "install", "--system")
    else:
        seen.done = machine.run("install", "--system")


@then("the folders of the system are as they were")
def _system_unchanged(seen: Seen) -> None:
    assert [os.path.lexists(path) for path in SYSTEM] == seen.system_before


@when("the user runs install --system below a folder with an odd name")
def _with_prefix(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("install", "--system", "--prefix", ODD)


@then("the same files are below that folder")
def _below(machine: Machine) -> None:
    root = machine.home / ODD
    check_programs(root / "usr/local/bin")
    config = tomllib.loads((root / "etc/rbee/config.toml").read_text())
    assert config["paths"] == {"models_dir": str(root / "var/lib/rbee/models")}
    assert (root / "var/lib/rbee/models").is_dir()


@then("rbee, run from there with its settings, looks for models below that folder")
def _uses_below(machine: Machine, seen: Seen) -> None:
    (line,) = [line for line in seen.done.stderr.decode().splitlines() if "export RBEE_CONFIG=" in line]
    program = machine.home / ODD / "usr/local/bin/rbee"
    found = subprocess.run(
        ["sh", "-c", f'{line}\nexec "$0" detect', program], env=machine.env, capture_output=True, check=True
    )
    assert f"models in {machine.home / ODD / 'var/lib/rbee/models'})" in found.stdout.decode()


def write_settings(machine: Machine, system: Path, place: str, text: str) -> Path:
    """Write settings in one of the three places; returns the file as the program sees it."""
    match place:
        case "RBEE_CONFIG":
            file = seen_as = machine.home / "elsewhere.toml"
            machine.env["RBEE_CONFIG"] = str(file)
        case "~/.config/rbee":
            file = seen_as = machine.home / CONFIG
        case _:
            file, seen_as = system / "etc/rbee/config.toml", Path("/etc/rbee/config.toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return seen_as


@given("RBEE_CONFIG, ~/.config/rbee and /etc/rbee each have settings, with a folder for models of their own")
def _three_places(machine: Machine, system: Path, seen: Seen) -> None:
    seen.folders = []
    for place in ("RBEE_CONFIG", "~/.config/rbee", "/etc/rbee"):
        folder = machine.home / f"models of {place.strip('~/')}"
        write_settings(machine, system, place, f'[paths]\nmodels_dir = "{folder}"\n')
        seen.folders.append(str(folder))


@when("the user asks for it, and takes away the first settings each time")
def _ask_each(machine: Machine, system: Path, seen: Seen) -> None:
    answers = [machine.run("detect")]
    del machine.env["RBEE_CONFIG"]
    answers.append(machine.run("detect"))
    (machine.home / CONFIG).unlink()
    answers.append(machine.run("detect"))
    (system / "etc/rbee/config.toml").unlink()
    answers.append(machine.run("detect"))
    seen.folders_named = [answer.stdout.decode().partition("(models in ")[2].partition(")\n")[0] for answer in answers]


@then("the models were in the folder of RBEE_CONFIG, of the user, of the system, and at last in the default one")
def _in_order(machine: Machine, seen: Seen) -> None:
    assert seen.folders_named == [*seen.folders, str(machine.home / ".local/share/rbee/models")]


@given(parsers.parse('{place} has settings with the port "many" for the queen'))
def _wrong_value(machine: Machine, system: Path, seen: Seen, place: str) -> None:
    # The variable would only be looked at after the file.
    del machine.env["RBEE_QUEEN_PORT"]
    seen.settings_file = write_settings(machine, system, place, '[queen]\nport = "many"\n')


@when("the user runs status")
def _status(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("status")


@then("stderr names that file")
def _names_file(seen: Seen) -> None:
    assert str(seen.settings_file) in seen.done.stderr.decode()
