"""Steps that bring rbee to another machine, and look at what is there then."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from typing import TYPE_CHECKING

from pytest_bdd import given, then, when

from features.lab import sources
from features.lab.machine import PROGRAM
from features.lab.terminal import run_on_terminal
from features.steps.nodes import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from features.lab.machine import Machine
    from features.lab.node import Node, Nodes
    from features.lab.seen import Seen

LINKS = ("rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee")
BRANCH = "as-it-is"
BUILD_SECONDS = 400.0
"""For a build on a machine that has nothing yet: it fetches the libraries of every Python, and may have a slow line."""
OWN_SETTING = "\n[worker]\nslots = 2\n"
EARLIER = "#!/usr/bin/env python3\nprint('rbee 0.0.1')\n"


@when("the user installs rbee there")
def _install(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("setup", "install", "--node", NAME)


@when("the user installs rbee there from source")
def _build(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("setup", "install", "--node", NAME, "--from-source", patience=BUILD_SECONDS)


@when("the user installs rbee there from a terminal")
def _install_on_terminal(machine: Machine, seen: Seen) -> None:
    seen.done = run_on_terminal(machine, "setup", "install", "--node", NAME)


@when("the user takes the version before back")
def _roll_back(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("setup", "install", "--node", NAME, "--rollback")


@then("a bar showed percent, megabytes and speed")
def _bar(seen: Seen) -> None:
    text = seen.done.text
    assert "Copying" in text
    assert " % " in text
    assert f"of {PROGRAM.stat().st_size / 1e6:.1f} MB" in text
    assert "MB/s" in text


@then("the node holds the very file, its links, the token for nobody else, and settings")
def _installed(machine: Machine, nodes: Nodes) -> None:
    folder = nodes[NAME].install
    program = folder / "bin" / "rbee"
    assert hashlib.sha256(program.read_bytes()).digest() == hashlib.sha256(PROGRAM.read_bytes()).digest()
    assert {name: str((folder / "bin" / name).readlink()) for name in LINKS} == dict.fromkeys(LINKS, "rbee")
    assert (folder / "token").read_text().strip() == machine.token
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    settings = tomllib.loads((folder / "config.toml").read_text())
    assert settings["paths"]["state_dir"] == str(folder / "state")
    assert settings["auth"]["token_file"] == str(folder / "token")
    assert not list((folder / "bin").glob(".*")), "nothing unfinished"


@then("rbee, run there with these settings, uses that folder alone")
def _runs(machine: Machine, nodes: Nodes) -> None:
    """Asked for its token, so that both its settings and its state are used."""
    done = run_there(nodes[NAME], "token")
    assert done.stdout.strip() == machine.token
    assert not (nodes[NAME].home / ".rbee").exists()


def run_there(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program, as a user of that machine does."""
    folder = node.install
    return subprocess.run(
        [str(folder / "bin" / "rbee-keeper"), *arguments, "--config", str(folder / "config.toml")],
        env={"HOME": str(node.home), "PATH": node.path, "RBEE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=True,
    )


@given("the user has changed the settings there")
def _own_settings(nodes: Nodes, seen: Seen) -> None:
    file = nodes[NAME].install / "config.toml"
    seen.settings = file.read_text() + OWN_SETTING
    file.write_text(seen.settings)


@then("the settings there are as the user left them")
def _kept(nodes: Nodes, seen: Seen) -> None:
    assert (nodes[NAME].install / "config.toml").read_text() == seen.settings


@given("an earlier version is installed there")
def _earlier(nodes: Nodes) -> None:
    program = nodes[NAME].install / "bin" / "rbee"
    program.parent.mkdir(parents=True)
    program.write_text(EARLIER)
    program.chmod(0o755)


@then("the earlier version is there again")
def _earlier_again(nodes: Nodes) -> None:
    assert (nodes[NAME].install / "bin" / "rbee").read_text() == EARLIER


@given("a machine called workstation, whose caches hold the engine")
def _with_caches(nodes: Nodes, tmp_path: Path) -> None:
    nodes.add(NAME, sources.quick_build(tmp_path / "template"))


@given("the node is registered with a repository of this checkout")
def _with_checkout(machine: Machine, nodes: Nodes, tmp_path: Path) -> None:
    sources.of_this_checkout(tmp_path / "rbee.git", BRANCH)
    nodes[NAME].register(machine, "--git-repo", str(tmp_path / "rbee.git"), "--git-branch", BRANCH)


@given("the node is registered with a repository that builds at once")
def _with_copy(machine: Machine, nodes: Nodes, tmp_path: Path) -> None:
    sources.of_a_copy(tmp_path / "rbee.git", BRANCH)
    nodes[NAME].register(machine, "--git-repo", str(tmp_path / "rbee.git"), "--git-branch", BRANCH)


@then("stderr shows what the build printed")
def _build_output(seen: Seen) -> None:
    assert "[queen-rbee] dist/rbee.pyz: " in seen.done.stderr.decode()


@given("[remote] binary_path names a copy of it elsewhere on the node")
def _elsewhere(machine: Machine, nodes: Nodes) -> None:
    copy = nodes[NAME].home / "else where" / "bee"
    copy.parent.mkdir()
    copy.write_bytes((nodes[NAME].install / "bin" / "rbee").read_bytes())
    copy.chmod(0o755)
    machine.env["RBEE_REMOTE_BINARY_PATH"] = str(copy)


@then("the hive there was started from that copy")
def _from_copy(machine: Machine, nodes: Nodes) -> None:
    (words,) = nodes[NAME].daemons("hive").values()
    assert machine.env["RBEE_REMOTE_BINARY_PATH"] in words, json.dumps(words)


@given("[remote] git_repo_dir names another folder on the node")
def _other_sources(machine: Machine, nodes: Nodes) -> None:
    machine.env["RBEE_REMOTE_GIT_REPO_DIR"] = str(nodes[NAME].home / "work" / "rbee sources")


@then("the sources are in that folder")
def _sources(machine: Machine, nodes: Nodes) -> None:
    found = nodes[NAME].home / "work" / "rbee sources" / "build" / "zipapp.py"
    assert found.is_file(), machine.env
    assert not (nodes[NAME].install / "src").exists()
