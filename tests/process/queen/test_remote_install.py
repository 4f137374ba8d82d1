"""Bringing rbee to another machine: cut at any point, on full disks, under wrong Pythons, and back again."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from rbee import __version__
from rbee.adapters.daemon import instance, process
from rbee.adapters.ssh import handshake
from rbee.adapters.ssh.target import Target
from rbee.errors import SshFailedError
from tests.conftest import ROOT
from tests.kit import disk as small_disk
from tests.kit import remote_nodes
from tests.kit.bare_node import PATH, BareNode
from tests.kit.packed import SIZE, pack
from tests.kit.swarm import Swarm
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADD = "/v2/registry/beehives/add"
BEFORE = "#!/usr/bin/env python3\nprint('rbee 0.0.1')\n"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that runs here."""
    return pack(tmp_path_factory.mktemp("packed") / "rbee.pyz")


@pytest.fixture
def swarm(tmp_path: Path, file: Path) -> Iterator[Swarm]:
    found = Swarm(tmp_path / "home")
    found.program = [sys.executable, str(file)]
    yield found
    found.kill()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[BareNode]:
    found = BareNode(tmp_path / "workstation")
    yield found
    found.close()


def register(swarm: Swarm, node: BareNode, **changes: Any) -> None:
    swarm.start_queen()
    with swarm.client() as queen:
        answer = queen.post(ADD, json=node.description(**changes))
    assert answer.status_code == 200, answer.text


def install(swarm: Swarm, *options: str) -> subprocess.CompletedProcess[str]:
    return swarm.run("setup", "install", "--node", "workstation", *options)


def program(node: BareNode) -> Path:
    return node.install / "bin" / "rbee"


def put_earlier(node: BareNode) -> None:
    program(node).parent.mkdir(parents=True, exist_ok=True)
    program(node).write_text(BEFORE)
    program(node).chmod(0o755)


def version(node: BareNode, name: str = "rbee") -> str:
    """Return what the program there says that it is."""
    env = {"HOME": str(node.home), "PATH": PATH, "RBEE_CACHE": str(node.install / "cache")}
    command = [str(node.install / "bin" / name), "--version"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_without_sftp_it_goes_through_the_shell(swarm: Swarm, node: BareNode) -> None:
    node.sshd.restart(Subsystem="nothing internal-sftp")
    register(swarm, node)
    done = install(swarm)
    assert done.returncode == 0, done.stderr
    assert "SFTP brings no files to workstation (it is off); they go through the shell" in done.stderr
    check_installed(swarm, node)
    assert (node.install / "token").stat().st_mode & 0o777 == 0o600


def test_all_nodes_at_once(swarm: Swarm, node: BareNode) -> None:
    """One that cannot be reached keeps none of the others from it; the Python that was named is kept for the next."""
    remote_nodes.register(swarm.home, ("cellar", "127.0.0.9"), host_key=node.sshd.public_key)
    register(swarm, node)
    python = node.home / "mine" / "bin" / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    done = swarm.run("setup", "install", "--all", "--python", "~/mine")
    assert done.returncode == 1
    assert "cellar: SSH to nobody@127.0.0.9" in done.stderr
    assert "1 of 2 nodes have kept what they had: cellar" in done.stderr
    check_installed(swarm, node)
    kept = (node.install / ".python").read_text().strip()
    assert os.path.realpath(kept) == os.path.realpath(sys.executable)
    assert swarm.run("setup", "remove-node", "--name", "cellar").returncode == 0
    done = swarm.run("setup", "install", "--all")
    assert (done.returncode, "is installed on workstation." in done.stderr) == (0, True), done.stderr
    done = install(swarm, "--python", "~/none")
    assert done.returncode == 1
    assert "there is no Python on workstation at the path that was named" in done.stderr


@pytest.fixture
def complete_node(tmp_path: Path) -> Iterator[BareNode]:
    """A node whose Python has what a hive imports, which the file here does not bring."""
    found = BareNode(tmp_path / "workstation", env={"PYTHONPATH": sysconfig.get_path("purelib")})
    yield found
    found.close()


def test_a_hive_that_has_another_token_ends_when_the_token_comes(swarm: Swarm, complete_node: BareNode) -> None:
    """As after the swarm's token was made anew: the hive that was tried goes on, with the token of before."""
    register(swarm, complete_node)
    assert install(swarm, "--python", sys.executable).returncode == 0
    (complete_node.install / "token").write_text("rbee_of-before")
    ask = ("models", "list", "--node", "workstation")
    done = swarm.run(*ask)
    assert done.returncode == 1
    assert "does not accept the queen's token" in done.stderr
    assert "`rbee setup install --node workstation` brings the token there" in done.stderr
    done = install(swarm)
    assert done.returncode == 0, done.stderr
    assert "Ended the hive on workstation, which had another token" in done.stderr
    done = swarm.run(*ask)
    assert done.returncode == 0, done.stderr
    assert "Ended" not in install(swarm).stderr, "the hive of now is of this version, and has this token"
    swarm.end()


def parts(node: BareNode) -> list[Path]:
    return list((node.install / "bin").glob(".*"))


def check_installed(swarm: Swarm, node: BareNode) -> None:
    assert filecmp.cmp(program(node), swarm.program[-1], shallow=False)
    for name in ("rbee", "rbee-keeper", "queen-rbee", "rbee-hive", "llm-worker-rbee"):
        assert (node.install / "bin" / name).resolve() == program(node).resolve()
    assert version(node).startswith("rbee ")
    assert (node.install / "bin" / "rbee-python").exists()
    assert parts(node) == []


def run_from_checkout(swarm: Swarm, root: Path, build: str) -> None:
    """Have the user run a checkout of its own, whose build is this script."""
    shutil.copytree(ROOT / "rbee", root / "rbee", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "shiv.toml", root)
    (root / "build").mkdir()
    (root / "build" / "zipapp.py").write_text(f"import os, shutil, subprocess, sys\n{build}")
    swarm.program, swarm.cwd = [sys.executable, "-m", "rbee"], root


def test_a_build_ends_with_the_command_that_needs_it(swarm: Swarm, node: BareNode, tmp_path: Path) -> None:
    build = "print('step 1 of 2', file=sys.stderr, flush=True)\nsubprocess.run(['sleep', '600'])\n"
    run_from_checkout(swarm, tmp_path / "checkout", build)
    register(swarm, node)
    keeper = begin_install(swarm)
    assert keeper.stderr is not None
    while b"step 1 of 2" not in keeper.stderr.readline():
        pass
    queen = instance.find(swarm.home, "queen")
    assert queen is not None
    started = psutil.Process(queen.identity.pid)
    wait_until(lambda: len(started.children(recursive=True)) == 2, "the build has started a program")
    builds = started.children(recursive=True)
    keeper.send_signal(signal.SIGINT)
    assert end(keeper)[0] == 130
    assert psutil.wait_procs(builds, 10)[1] == []


def test_a_queen_of_a_checkout_builds_the_file_first_and_says_so(
    swarm: Swarm, node: BareNode, file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "checkout"
    build = f"print('step 1 of 1', file=sys.stderr)\nos.makedirs({str(root / 'dist')!r})\n"
    run_from_checkout(swarm, root, f"{build}shutil.copy({str(file)!r}, {str(root / 'dist')!r})\n")
    register(swarm, node)
    done = install(swarm)
    assert done.returncode == 0, done.stderr
    assert "[queen-rbee] Building " in done.stderr
    assert "[queen-rbee] step 1 of 1" in done.stderr
    assert filecmp.cmp(program(node), file, shallow=False)


def test_a_file_that_was_replaced_since_the_queen_started_is_reported(
    swarm: Swarm, node: BareNode, tmp_path: Path
) -> None:
    mine = shutil.copy(swarm.program[-1], tmp_path / "rbee.pyz")
    swarm.program = [sys.executable, str(mine)]
    register(swarm, node)
    pack(mine, "9.9.9")
    done = install(swarm)
    assert (done.returncode, "the file that it was started from has become rbee 9.9.9" in done.stderr) == (1, True)
    assert "rbee down" in done.stderr


def test_the_same_file_is_not_sent_again_and_what_is_missing_is_made(swarm: Swarm, node: BareNode) -> None:
    proxy = node.behind_proxy()
    register(swarm, node)
    assert install(swarm).returncode == 0
    file = program(node).stat()
    for name in ("bin/rbee-hive", "bin/rbee-python", "token"):
        (node.install / name).unlink()
    shutil.rmtree(node.install / "state")
    (node.install / "bin" / ".rbee.0123.part").write_text("of an installation that was cut")
    proxy.order(None)
    done = install(swarm)
    assert done.returncode == 0, done.stderr
    assert "already; nothing is sent" in done.stderr
    assert proxy.sent < 200_000
    assert (program(node).stat().st_ino, program(node).stat().st_mtime) == (file.st_ino, file.st_mtime)
    check_installed(swarm, node)
    assert (node.install / "token").stat().st_mode & 0o777 == 0o600
    assert (node.install / "state").stat().st_mode & 0o777 == 0o700


# Cut.


@pytest.mark.parametrize(
    ("fault", "after"),
    [("cut", 2_000), ("reset", 12_000), ("cut", 1_000_000), ("reset", SIZE + 2_000)],
)
def test_a_connection_that_is_cut_leaves_the_version_before(
    swarm: Swarm, node: BareNode, fault: Any, after: int
) -> None:
    proxy = node.behind_proxy()
    register(swarm, node)
    put_earlier(node)
    proxy.order(fault, after=after)
    done = install(swarm)
    assert proxy.happened.is_set()
    assert done.returncode == 1
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("rbee: ")]
    assert f"{node.sshd.user}@{node.sshd.address}:{node.port}" in told
    assert "Traceback" not in done.stderr
    assert version(node) == "rbee 0.0.1"
    proxy.order(None)
    done = install(swarm)
    assert done.returncode == 0, done.stderr
    check_installed(swarm, node)
    assert version(node, "rbee.previous") == "rbee 0.0.1"


def begin_install(swarm: Swarm) -> subprocess.Popen[bytes]:
    command = [*swarm.program, "setup", "install", "--node", "workstation"]
    return subprocess.Popen(
        command,
        cwd=swarm.cwd,
        env=swarm.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def in_the_middle(swarm: Swarm, node: BareNode) -> subprocess.Popen[bytes]:
    """Begin an installation over an earlier one; returns once a part of the file is there, and no more comes."""
    proxy = node.behind_proxy()
    register(swarm, node)
    put_earlier(node)
    proxy.hold("requests", after=1_500_000)
    keeper = begin_install(swarm)
    wait_until(lambda: any(part.stat().st_size > 1_000_000 for part in parts(node)), "a part of the file is there")
    return keeper


def end(keeper: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, errors = keeper.communicate(timeout=30)
    return keeper.returncode, errors.decode()


def finish(swarm: Swarm, node: BareNode) -> None:
    """The version before works; the next installation is whole, and leaves nothing of the one that was cut."""
    assert version(node) == "rbee 0.0.1"
    node.behind_proxy().release()
    done = install(swarm)
    assert done.returncode == 0, done.stderr
    check_installed(swarm, node)


def test_sshd_and_its_sessions_are_killed(swarm: Swarm, node: BareNode) -> None:
    keeper = in_the_middle(swarm, node)
    sessions = psutil.Process(node.sshd.pid).children(recursive=True)
    node.sshd.stop(signal.SIGKILL)
    for session in sessions:
        session.kill()
    code, errors = end(keeper)
    assert (code, "was lost" in errors or "reset" in errors.lower()) == (1, True), errors
    assert re.search(r"rbee: the installation on workstation was cut with \d+\.\d of \d+\.\d MB sent: ", errors), errors
    assert errors.endswith("goes on working; the same command begins anew\n"), errors
    node.sshd.start()
    finish(swarm, node)


def test_the_queen_is_killed(swarm: Swarm, node: BareNode) -> None:
    keeper = in_the_middle(swarm, node)
    queen = instance.find(swarm.home, "queen")
    assert queen is not None
    process.send_signal(queen.identity, signal.SIGKILL)
    code, errors = end(keeper)
    assert (code, "the queen exited before the installation was complete" in errors) == (1, True), errors
    swarm.start_queen()
    finish(swarm, node)


def test_the_user_gives_up(swarm: Swarm, node: BareNode) -> None:
    keeper = in_the_middle(swarm, node)
    keeper.send_signal(signal.SIGINT)
    assert end(keeper)[0] == 130
    finish(swarm, node)


def test_a_server_that_allows_one_session_at_a_time(swarm: Swarm, tmp_path: Path) -> None:
    node = BareNode(tmp_path / "narrow", MaxSessions="1")
    try:
        register(swarm, node)
        done = install(swarm)
        assert done.returncode == 0, done.stderr
        check_installed(swarm, node)
    finally:
        node.close()


def test_the_installation_of_another_queen_takes_the_file_away(swarm: Swarm, node: BareNode) -> None:
    keeper = in_the_middle(swarm, node)
    for part in (node.install / "bin").glob(".rbee.*.part"):
        part.unlink()
    node.behind_proxy().release()
    code, said = end(keeper)
    assert (code, "was taken away before it was in its place" in said) == (1, True), said
    assert "try again" in said
    finish(swarm, node)


def test_two_installations_at_once_are_one_after_the_other(swarm: Swarm, node: BareNode) -> None:
    first, second = in_the_middle(swarm, node), begin_install(swarm)
    assert second.stderr is not None
    said = next(line for line in second.stderr if b"Waiting for another installation on workstation to end" in line)
    node.behind_proxy().release()
    assert end(first)[0] == 0
    code, rest = end(second)
    assert code == 0, (said, rest)
    assert "already; nothing is sent" in rest
    check_installed(swarm, node)


async def test_a_machine_that_takes_nothing_any_more_is_given_up(
    node: BareNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.adapters.ssh.sftp.STALLED_SECONDS", 0.5)
    proxy = node.behind_proxy()
    (tmp_path / "file").write_bytes(bytes(40_000_000))
    target = Target(node.sshd.address, node.port, node.sshd.user, str(node.sshd.key), node.sshd.public_key)
    async with handshake.connect(target, own_known_hosts=tmp_path / "known_hosts") as connection:
        proxy.order("black hole", after=1_000_000)
        with pytest.raises(SshFailedError, match="it stopped answering"):
            await connection.upload(tmp_path / "file", str(node.home / "file"), mode=0o644)


# Full disks.


@pytest.fixture
def disk(node: BareNode) -> Iterator[Callable[[int], None]]:
    """Give a function that puts the node's home on a disk of so many megabytes."""
    yield lambda megabytes: small_disk.mount(node.home, f"size={megabytes}M")
    small_disk.unmount(node.home)


def test_a_disk_that_is_too_small_is_reported_before_anything_is_sent(
    swarm: Swarm, node: BareNode, disk: Callable[[int], None]
) -> None:
    disk(50)
    proxy = node.behind_proxy()
    register(swarm, node)
    put_earlier(node)
    proxy.order(None)
    done = install(swarm)
    assert done.returncode == 1
    assert "MB on workstation, and 5" in done.stderr
    assert proxy.sent < 200_000
    assert version(node) == "rbee 0.0.1"


def test_a_disk_that_gets_full_meanwhile(swarm: Swarm, node: BareNode, disk: Callable[[int], None]) -> None:
    disk(200)
    keeper = in_the_middle(swarm, node)
    filler = node.home / "filler"
    with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
        file.write(bytes(200 << 20))
    node.behind_proxy().release()
    code, errors = end(keeper)
    assert (code, "MB are free there" in errors) == (1, True), errors
    assert parts(node) == [], "what is left of it would be in everybody's way"
    filler.unlink()
    finish(swarm, node)


# What is there.


def test_a_file_that_does_not_start_does_not_take_the_place(swarm: Swarm, tmp_path: Path) -> None:
    node = with_tools(tmp_path, **{"python3.14": f"#!/bin/sh\n{ANSWER.format(version='3.14.9', lacks='-')}"})
    try:
        register(swarm, node)
        put_earlier(node)
        done = install(swarm)
        assert (done.returncode, "the program does not start on workstation: boom" in done.stderr) == (1, True)
        assert version(node) == "rbee 0.0.1"
        assert parts(node) == []
    finally:
        node.close()


ANSWER = '[ "$1" = -c ] && case $2 in *sys.implementation*) echo "cpython {version} - {lacks} $0"; exit 0;; esac\n' + (
    '[ "$1" = -c ] && exec python3.11 "$@"\necho boom >&2; exit 1\n'
)
"""What a Python of some version answers to the probe; else it sums files up, and starts nothing."""
POOR = f"#!/bin/sh\n{ANSWER.format(version='3.12.1', lacks='sqlite3,ssl')}"
PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")


def with_tools(tmp_path: Path, **tools: str) -> BareNode:
    """Return a node that finds these programs first."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, text in tools.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return BareNode(tmp_path / "workstation", env={"PATH": f"{folder}:{PATH}"})


@pytest.mark.parametrize(
    ("tools", "words", "helps"),
    [
        ({"getconf": "#!/bin/sh\necho glibc 2.31\n"}, ["glibc 2.31", "glibc 2.34 or newer"], True),
        (dict.fromkeys(PYTHONS, POOR), ["found: cpython 3.12.1 without sqlite3 and ssl"], False),
    ],
)
def test_a_machine_that_cannot_run_it_says_what_is_missing(
    swarm: Swarm, tmp_path: Path, tools: dict[str, str], words: list[str], helps: bool
) -> None:
    node = with_tools(tmp_path, **tools)
    try:
        register(swarm, node)
        done = install(swarm)
        assert done.returncode == 1
        assert "rbee: rbee.pyz cannot run on workstation: " in done.stderr
        for found in words:
            assert found in done.stderr
        assert ("--from-source" in done.stderr) == helps
        assert not node.install.exists()
        if not helps:
            assert install(swarm, "--from-source").returncode == 1
    finally:
        node.close()


def test_there_and_back_again(swarm: Swarm, node: BareNode) -> None:
    register(swarm, node)
    done = install(swarm, "--rollback")
    assert (done.returncode, "there is no previous version on workstation" in done.stderr) == (1, True), done.stderr
    put_earlier(node)
    assert install(swarm).returncode == 0
    for expected in ("rbee 0.0.1", version(node), "rbee 0.0.1"):
        done = install(swarm, "--rollback")
        assert done.returncode == 0, done.stderr
        assert f"{expected} is installed on workstation." in done.stderr
        assert version(node) == expected
    assert parts(node) == []
    # Cut between its two steps: the other version is still there to go back to.
    (node.install / "bin" / "rbee.previous").rename(node.install / "bin" / ".rbee.now.part")
    assert install(swarm, "--rollback").returncode == 0
    assert (version(node), parts(node)) == (f"rbee {__version__}", [])
    assert install(swarm, "--rollback").returncode == 0
    (node.install / "bin" / "rbee.previous").write_text("import no_such_module")
    done = install(swarm, "--rollback")
    assert (done.returncode, "the previous version does not start" in done.stderr) == (1, True), done.stderr
    assert version(node) == "rbee 0.0.1"


def test_the_users_settings_there_are_kept_and_the_token_is_renewed(swarm: Swarm, node: BareNode) -> None:
    register(swarm, node)
    assert install(swarm).returncode == 0
    for name in ("token", "config.toml"):
        assert (node.install / name).stat().st_mode & 0o777 == 0o600
    (node.install / "config.toml").write_text("# mine\n")
    (node.install / "token").write_text("of another swarm\n")
    (node.install / "token").chmod(0o644)
    assert install(swarm).returncode == 0
    assert (node.install / "config.toml").read_text() == "# mine\n"
    assert (node.install / "token").read_text() == (swarm.home / "token").read_text()
    assert (node.install / "token").stat().st_mode & 0o777 == 0o600


def test_a_folder_with_an_odd_name(swarm: Swarm, node: BareNode) -> None:
    name = 'it\'s a "folder"; $(touch canary) `touch canary` ü'
    node.install = node.home / name
    register(swarm, node, install_path=f"~/{name}")
    for _ in range(2):
        done = install(swarm)
        assert done.returncode == 0, done.stderr
    check_installed(swarm, node)
    assert not list(node.home.rglob("canary"))


# From source.


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ("import sys; print('no compiler'); sys.exit(3)", "rbee could not be built on workstation: no compiler"),
        ("open('x').read()", "rbee could not be built on workstation: FileNotFoundError"),
        ("import os; os.makedirs('dist'); open('dist/rbee.pyz', 'w').write('1/0')", "does not start on workstation"),
    ],
)
def test_a_build_that_fails_leaves_the_version_before(
    swarm: Swarm, node: BareNode, tmp_path: Path, build: str, words: str
) -> None:
    sources = tmp_path / "sources" / "build"
    sources.mkdir(parents=True)
    (sources / "zipapp.py").write_text(build)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-q", "-m", "as it is"]):
        subprocess.run(["git", *command], cwd=sources.parent, check=True)
    register(swarm, node, git_repo_url=str(sources.parent))
    put_earlier(node)
    done = install(swarm, "--from-source")
    assert (done.returncode, words in done.stderr) == (1, True), done.stderr
    assert version(node) == "rbee 0.0.1"
    assert parts(node) == []


def test_a_bad_repository_is_reported(swarm: Swarm, node: BareNode) -> None:
    register(swarm, node)
    done = install(swarm, "--from-source")
    assert (done.returncode, "has no repository to build from" in done.stderr) == (1, True), done.stderr
    assert "rbee setup update-node --name workstation --git-repo URL" in done.stderr
    changed = swarm.run("setup", "update-node", "--name", "workstation", "--git-repo", "/no/such/repository.git")
    assert changed.returncode == 0, changed.stderr
    done = install(swarm, "--from-source")
    assert (done.returncode, "could not be built" in done.stderr) == (1, True), done.stderr
    assert "does not exist" in done.stderr
