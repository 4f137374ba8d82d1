"""What a command imports: nothing heavy where nothing heavy is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "asyncio", "click", "httpx", "hypercorn", "jinja2", "llama_cpp", "msgspec", "numpy", "paramiko", "prompt_toolkit",
    "psutil", "quart", "rich", "trio",
}  # fmt: skip
PROGRAM = """
import json, sys
from rbee.entry import main
try:
    code = main(sys.argv[1:])
except SystemExit as wrong_usage:
    code = wrong_usage.code
names = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
own = [name for name in sys.modules if name.startswith("rbee.")]
print("\\n" + json.dumps([code, sorted(names), own]), file=sys.stderr)
"""


def imported(home: Path, *arguments: str) -> tuple[int, set[str], set[str]]:
    """Run rbee in a child; returns its exit code, the top-level modules it imported, and rbee's own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_")}
    # Port 1 of this machine: nobody listens there.
    environment |= {"HOME": str(home), "RBEE_HOME": str(home / "state"), "RBEE_QUEEN_PORT": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        text=True,
        timeout=50,
    )
    code, names, own = json.loads(result.stderr.splitlines()[-1])
    return code, set(names), set(own)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        ([], 0),
        (["--help"], 0),
        (["infer", "--help"], 0),
        (["chat", "--help"], 0),
        (["install", "--help"], 0),
        (["workers", "--help"], 0),
        (["bogus"], 2),
        (["infer", "--bogus"], 2),
        (["infer", "--max-tokens", "none"], 2),
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(tmp_path: Path, arguments: list[str], code: int) -> None:
    found, names, _ = imported(tmp_path, *arguments)
    assert found == code
    assert names & HEAVY == set()


def test_the_version_imports_no_parser(tmp_path: Path) -> None:
    _, names, own = imported(tmp_path, "--version")
    assert "argparse" not in names
    assert own == {"rbee.entry"}


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["token"], {"msgspec"}),
        (["detect"], {"msgspec", "psutil"}),
        (["status"], {"msgspec", "trio", "httpx"}),
        (["workers", "list"], {"msgspec", "trio", "httpx"}),
        (["down"], {"msgspec", "trio", "httpx"}),
    ],
)
def test_a_command_imports_what_it_needs(tmp_path: Path, arguments: list[str], allowed: set[str]) -> None:
    code, names, own = imported(tmp_path, *arguments)
    assert code == 0
    assert names & HEAVY <= allowed
    assert not any(name.startswith(("rbee.queen", "rbee.hive", "rbee.worker")) for name in own)


def test_infer_draws_nothing_where_there_is_no_terminal(tmp_path: Path) -> None:
    # The configuration is read and every module is there when the model turns out to be none.
    code, names, own = imported(tmp_path, "infer", "--prompt", "x", "--model", "none")
    assert code == 1
    assert "rbee.keeper.commands.infer" in own
    assert names & HEAVY == {"msgspec", "trio", "httpx"}


def test_a_chat_has_no_editor_and_draws_nothing_where_there_is_no_terminal(tmp_path: Path) -> None:
    code, names, own = imported(tmp_path, "chat", "--queen", "http://127.0.0.1:1")
    assert code == 1
    assert "rbee.keeper.chat.chat" in own
    assert names & HEAVY == {"msgspec", "trio", "httpx"}


@pytest.mark.parametrize("role", ["queen", "hive", "worker"])
def test_a_daemon_has_no_command_line_of_its_libraries(tmp_path: Path, role: str) -> None:
    code, names, own = imported(tmp_path, role, "--bogus")
    assert code == 2
    assert f"rbee.{role}.daemon" in own
    assert names & {"rich", "pygments"} == set()


def test_a_queen_without_other_machines_has_no_ssh() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import rbee.queen.daemon, sys; print('paramiko' in sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout == "False\n"


def test_every_command_names_a_module_that_exists() -> None:
    import importlib

    from rbee.keeper.command_line import command_table

    for command in (*command_table.COMMANDS, *command_table.WORKERS, *command_table.MODELS, *command_table.SETUP):
        assert callable(importlib.import_module(command.module).run)
