"""What users and machines may say that a shell would take for more: refused, or passed on as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.adapters.config import quoted
from rbee.adapters.ssh import handshake
from rbee.adapters.ssh.target import Target
from rbee.errors import InvalidRequestError, SshFailedError
from rbee.queen.hives.remote import script as remote_script
from rbee.queen.hives.remote.install import CONFIG
from rbee.queen.hives.remote.probe import probe
from rbee.wire.decode import decode
from rbee.wire.registry import Beehive
from tests.kit.bare_node import PATH, BareNode
from tests.kit.proxy import Proxy
from tests.kit.swarm import Swarm

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

ADD = "/v2/registry/beehives/add"
CANARY = "canary"
TRICKS = (
    "a b",
    "it's",
    'say "hi"',
    f"a;touch {CANARY}",
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"a\ntouch {CANARY}",
    f"a|touch {CANARY}",
    f"a&touch {CANARY}",
    f"-oProxyCommand=touch {CANARY}",
    "--upload-pack=touch",
    "",
    "\x1b[2J",
    "ü\u202e",
)
ALLOWED = st.characters(exclude_categories=("Cc", "Cs"))
SPECIAL = st.sampled_from("'\"\\$`;&|<>(){}[]*?!#~ -")
PIECES = st.text(SPECIAL | ALLOWED, min_size=1, max_size=60).filter(
    lambda text: text not in (".", "..") and "/" not in text and len(text.encode()) <= 200
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BareNode]:
    found = BareNode(tmp_path_factory.mktemp("node") / "sshd")
    yield found
    assert not list(found.home.rglob(CANARY))
    found.close()


@pytest.fixture(scope="module")
def queen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    swarm = Swarm(tmp_path_factory.mktemp("home") / "state")
    swarm.start_queen()
    with swarm.client() as client:
        yield client
    swarm.end()
    swarm.kill()


def target(node: BareNode) -> Target:
    return Target(node.sshd.address, node.port, node.sshd.user, str(node.sshd.key), node.sshd.public_key)


def connect(node: BareNode) -> Any:
    return handshake.connect(target(node), own_known_hosts=Path("/nonexistent/known_hosts"))


@pytest.mark.parametrize("text", TRICKS)
@pytest.mark.parametrize("field", ["node_name", "ssh_host", "ssh_user", "git_branch", "git_repo_url", "install_path"])
def test_names_that_a_shell_would_take_apart_are_refused(
    queen: httpx.Client, node: BareNode, field: str, text: str
) -> None:
    with Proxy((node.sshd.address, node.sshd.port), host=node.sshd.address) as proxy:
        answer = queen.post(ADD, json=node.description(ssh_port=proxy.port, **{field: text}))
        found = answer.json()["error"]
        assert (answer.status_code, found["code"], found["details"]["field"]) == (400, "INVALID_REQUEST", field)
        assert CANARY not in answer.text, "it may be private, or worse"
        assert proxy.accepted == 0


@pytest.mark.parametrize("text", ["/a\nb", "/a\x00b", "/a\x1bb", "a/b", "~bee/a", "~", "$HOME/a", "/" + "a" * 1024])
def test_paths_that_are_none_are_refused(queen: httpx.Client, node: BareNode, text: str) -> None:
    answer = queen.post(ADD, json=node.description(install_path=text))
    assert answer.json()["error"]["details"]["field"] == "install_path", answer.text


@given(st.text(SPECIAL | ALLOWED, min_size=1, max_size=30))
def test_a_name_of_any_kind_is_plain_or_refused(text: str) -> None:
    """Whatever passes holds nothing that a shell, git or a terminal would take for more than a letter."""
    for field in ("node_name", "ssh_host", "ssh_user", "git_branch"):
        body = {"node_name": "a", "ssh_host": "a", "ssh_user": "a"} | {field: text}
        try:
            taken = getattr(decode(msgspec.json.encode(body), Beehive), field)
        except InvalidRequestError:
            continue
        assert taken == text
        assert not taken.startswith("-")
        assert not set(taken) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:%/$")
        assert "$" not in taken[:-1]


@settings(max_examples=30)
@given(pieces=st.lists(PIECES, min_size=1, max_size=3))
async def test_a_path_of_any_kind_is_passed_on_as_it_is(node: BareNode, pieces: list[str]) -> None:
    """Folders and settings are made there under exactly that name, and nothing else happens."""
    path = "/".join([str(node.home / "paths"), *pieces])
    decode(msgspec.json.encode(node.description(install_path=path)), Beehive)
    async with connect(node) as connection:
        said = await remote_script.run(connection, "prepare_install", {"install": path, "python": "/usr/bin/env"})
        assert said["free"]
        await connection.write(b"token", f"{path}/token", mode=0o600)
    found = node.home.joinpath("paths", *pieces)
    assert (found / "bin").is_dir()
    assert (found / "token").read_bytes() == b"token"
    assert [made.name for made in (node.home / "paths").iterdir()] == [pieces[0]]
    shutil.rmtree(node.home / "paths")
    assert not list(node.home.rglob(CANARY))


@given(PIECES)
def test_settings_hold_a_path_of_any_kind(piece: str) -> None:
    path = f"/home/{piece}"
    read = tomllib.loads(CONFIG.format(state=quoted(path), token=quoted(f"{path}/token")))
    assert (read["paths"]["state_dir"], read["auth"]["token_file"]) == (path, f"{path}/token")


# Login shells.

BANNER = "printf 'Welcome!\\n\\033[31mIt is Monday.\\n'; printf 'no newline'; "


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        ("sh", 'exec sh -c "$SSH_ORIGINAL_COMMAND"'),
        ("bash", BANNER + 'exec bash -c "$SSH_ORIGINAL_COMMAND"'),
        ("fish", 'exec fish -c "$SSH_ORIGINAL_COMMAND"'),
        ("tcsh", 'exec tcsh -c "$SSH_ORIGINAL_COMMAND"'),
        ("csh", BANNER + 'exec csh -c "$SSH_ORIGINAL_COMMAND"'),
    ],
)
async def test_whatever_the_login_shell_is_and_prints(tmp_path: Path, shell: str, command: str) -> None:
    """Commands and SFTP's server go through it, as with most sshd."""
    server = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec/openssh:/usr/lib/ssh:/usr/libexec")
    if shutil.which(shell) is None or server is None:
        pytest.skip(f"there is no {shell} here, or no sftp-server")
    node = BareNode(tmp_path / "sshd", ForceCommand=command, Subsystem=f"sftp {server}")
    try:
        (tmp_path / "file").write_bytes(bytes(range(256)) * 4000)
        async with connect(node) as connection:
            machine = await probe(connection)
            await connection.upload(tmp_path / "file", str(node.home / "file"), mode=0o644)
            await connection.write(b"token", str(node.home / "it's a token"), mode=0o600)
        assert machine.home == str(node.home)
        assert machine.python() is not None
        assert (node.home / "file").read_bytes() == (tmp_path / "file").read_bytes()
        assert (node.home / "it's a token").read_bytes() == b"token"
    finally:
        node.close()


SHELLS = {
    "no SFTP": {"Subsystem": "nothing internal-sftp"},
    "no SFTP today": {"Subsystem": "sftp /bin/echo no SFTP today"},
    "an SFTP that ends": {"Subsystem": "sftp /bin/false"},
    "an SFTP that hangs": {"Subsystem": "sftp /bin/sleep 1000"},
    "an SFTP that hangs later": {"Subsystem": "sftp printf '\\0\\0\\0\\5\\2\\0\\0\\0\\3'; exec sleep 1000"},
    "an SFTP that babbles": {"Subsystem": "sftp while echo hello; do sleep 0.1; done"},
    "an SFTP that does not write": {"Subsystem": "sftp internal-sftp -R"},
    "one session at a time": {"Subsystem": "sftp /bin/false", "MaxSessions": "1"},
    "another login shell": {"Subsystem": "sftp /bin/false", "ForceCommand": 'exec csh -c "$SSH_ORIGINAL_COMMAND"'},
    "another root": {},
}


@pytest.mark.parametrize("case", SHELLS)
async def test_files_go_through_the_shell_where_sftp_does_not_bring_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    options = dict(SHELLS[case])
    if "hangs" in case or "babbles" in case:
        monkeypatch.setattr("rbee.adapters.ssh.sftp.ANSWER_SECONDS", 0.5)
    if "csh" in options.get("ForceCommand", "") and shutil.which("csh") is None:
        options["ForceCommand"] = 'exec sh -c "$SSH_ORIGINAL_COMMAND"'
    if case == "another root":
        options["Subsystem"] = f"sftp {another_root(tmp_path)}"
    node = BareNode(tmp_path / "sshd", **options)
    content = bytes(range(256)) * 4001
    (tmp_path / "file").write_bytes(content)
    folder = node.home / "it's a $(touch canary) `folder` ü"
    folder.mkdir()
    heard: list[int] = []
    try:
        async with connect(node) as connection:
            await connection.upload(tmp_path / "file", str(folder / "file"), mode=0o755, on_progress=heard.append)
            await connection.write(b"token", str(folder / "token"), mode=0o600)
            with pytest.raises(SshFailedError, match="No such file or directory"):
                await connection.write(b"token", str(node.home / "none" / "token"), mode=0o600)
            if "hangs" in case or "babbles" in case:  # once, and not for each folder
                monkeypatch.setattr("rbee.adapters.ssh.sftp.obstacle", None)
                assert await connection.sftp_obstacle("/another") == "it did not answer within 0.5 s"
            if os.path.exists("/dev/full"):  # noqa: ASYNC240, PTH110
                (folder / "full.part").symlink_to("/dev/full")
                with pytest.raises(SshFailedError, match="No space left on device"):
                    await connection.write(b"token", str(folder / "full"), mode=0o600)
    finally:
        node.close()
    assert (folder / "file").read_bytes() == content
    assert ((folder / "file").stat().st_mode & 0o777, heard[-1]) == (0o755, len(content))
    assert (folder / "token").read_bytes() == b"token"
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in folder.iterdir()} == {"file", "token"}


def another_root(folder: Path) -> Path:
    """Make an SFTP server that has another folder where the shell has the home, as in a chroot; needs root."""
    server = shutil.which("sftp-server", path="/usr/lib/openssh:/usr/libexec/openssh:/usr/lib/ssh:/usr/libexec")
    if server is None or os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("another root needs root here, and sftp-server")
    (folder / "other").mkdir()
    made = folder / "other-root"
    home = folder / "sshd" / "home"
    made.write_text(
        f"#!/bin/sh\nexec unshare -m sh -c 'mkdir -p {folder}/other/empty && cp -r {home}/. {folder}/other &&"
        f" mount --bind {folder}/other {home} && exec {server}'\n"
    )
    made.chmod(0o755)
    return made


async def test_a_machine_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.queen.hives.remote.probe.ANSWER_SECONDS", 0.5)
    node = BareNode(tmp_path / "sshd", ForceCommand="sleep 60")
    try:
        with trio.fail_after(10):
            async with connect(node) as connection:
                with pytest.raises(SshFailedError, match=r"did not run a command within 0.5 s") as caught:
                    await probe(connection)
        assert caught.value.details["reason"] == "timeout"
    finally:
        node.close()


# Machines that are not what they should be.


@pytest.mark.parametrize("home", ["", "relative", "/a\x1b[2Jb", "/" + "a" * 5000])
async def test_a_home_that_is_none_is_an_error(tmp_path: Path, home: str) -> None:
    node = BareNode(tmp_path / "sshd", SetEnv=f'"HOME={home}" "PATH={PATH}"')
    try:
        async with connect(node) as connection:
            with pytest.raises(SshFailedError, match="does not say where the user's home folder is"):
                await probe(connection)
    finally:
        node.close()
