"""The systemd units of the daemons: what stands in them, and whether systemd takes them."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.config import Timeouts
from rbee.keeper.install import units

if TYPE_CHECKING:
    from pathlib import Path

ODD = "we ird $HOME %h \"q\" 'a' \\n ü;\n\x01"
ODD_BUT_STARTABLE = "we ird $HOME %h ü; ="


def unit(role: str, command: list[str] | None = None, **environment: str) -> str:
    return units.text(role, command or ["/usr/bin/python3", "/bin/rbee", role], environment, stop_seconds=70)


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",), strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


@pytest.mark.parametrize("role", units.ROLES)
def test_a_unit_holds_what_its_daemon_needs(role: str) -> None:
    found = parsed(unit(role))
    service = dict(found["Service"])
    assert service["ExecStart"] == f':"/usr/bin/python3" "/bin/rbee" "{role}"'
    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert service["KillMode"] == "process", "what is below outlives a daemon that dies"
    assert service["OOMPolicy"] == "continue", "a worker out of memory ends no hive"
    assert service["Restart"] == "on-failure"
    assert found["Install"]["WantedBy"] == "default.target"
    assert int(service["WatchdogSec"]) > 10
    assert int(service["TimeoutStopSec"]) == 70


def test_a_daemon_has_time_to_drain_and_to_end_its_children() -> None:
    assert Timeouts(drain=100, cascade=200).ending > 300


def test_the_hive_is_there_first() -> None:
    assert parsed(unit("queen"))["Unit"]["After"] == units.name("hive")
    assert "After" not in parsed(unit("hive"))["Unit"]


def test_the_environment_is_written_down() -> None:
    assert 'Environment="RBEE_HOME=/a b"\nEnvironment="RBEE_CACHE=/50%%"\n' in unit(
        "hive", RBEE_HOME="/a b", RBEE_CACHE="/50%"
    )
    assert "Environment" not in unit("hive")


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("/bin/rbee", '"/bin/rbee"'),
        ("a b", '"a b"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$HOME"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("two\nlines\x7f", r'"two\x0alines\x7f"'),
        ("ünïcode", '"ünïcode"'),
        ("", '""'),
    ],
)
def test_a_word_is_quoted(word: str, quoted: str) -> None:
    assert units.quote(word) == quoted


@pytest.mark.parametrize("path", ["/o'brien/python3", '/a"b/python3', "/back\\slash/python3", "/new\nline/python3"])
def test_an_interpreter_that_systemd_would_not_start_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="it starts no program whose path contains quotes"):
        unit("hive", [path, "/bin/rbee", "hive"])


def test_a_path_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"UTF-8 only, and a path is not: '/\\udcff'"):
        unit("hive", ["/usr/bin/python3", "/\udcff", "hive"])
    with pytest.raises(ValueError, match="UTF-8 only"):
        unit("hive", RBEE_HOME="/\udcff")


@pytest.fixture
def verify(tmp_path: Path) -> list[str]:
    """The command that has systemd check units."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    return ["env", f"XDG_RUNTIME_DIR={runtime}", "systemd-analyze", "--user", "--man=no", "verify"]


def verified(verify: list[str], folder: Path, units_text: dict[str, str]) -> str:
    """Return what systemd says against these units."""
    for name, text in units_text.items():
        (folder / name).write_text(text)
    command = [*verify, *(str(folder / name) for name in units_text)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(("of_python", "of_program"), [("plain", "plain"), (ODD_BUT_STARTABLE, ODD)])
def test_systemd_accepts_the_units(verify: list[str], tmp_path: Path, of_python: str, of_program: str) -> None:
    python, program = tmp_path / of_python / "python3", tmp_path / f"{of_program} program" / "rbee"
    for path in (python, program):
        path.parent.mkdir()
        path.symlink_to(sys.executable)
    environment = {"RBEE_HOME": f"/home/{ODD}", "RBEE_CACHE": "/plain"}
    texts = {units.name(role): unit(role, [str(python), str(program), role], **environment) for role in units.ROLES}
    assert verified(verify, tmp_path, texts) == ""


def test_systemd_reports_a_bad_unit(verify: list[str], tmp_path: Path) -> None:
    """The check above can fail: systemd knows each key, and whether the program is there."""
    text = unit("hive", [sys.executable, "/bin/rbee", "hive"])
    assert "WatchdogSecs" in verified(verify, tmp_path, {"one.service": text.replace("WatchdogSec", "WatchdogSecs")})
    assert "not executable" in verified(verify, tmp_path, {"two.service": unit("hive", ["/no/python", "/x", "hive"])})


def test_every_unit_begins_with_the_mark_by_which_it_is_known() -> None:
    for role in units.ROLES:
        assert unit(role).startswith(units.MARK)
        assert re.fullmatch(r"rbee-\w+\.service", units.name(role))
