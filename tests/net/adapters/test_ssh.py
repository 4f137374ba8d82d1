"""The SSH client against real OpenSSH servers, and against what is none."""

from __future__ import annotations

import os
import shlex
import socket
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters.ssh import handshake
from rbee.adapters.ssh.target import SshServer, Target
from rbee.adapters.ssh.trust import ShownKey, Trust
from rbee.errors import SshFailedError
from rbee.narrower_errors import HostKeyError
from rbee.queen.hives.remote import script as remote_script
from tests.kit.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


def target(server: Sshd, **changed: object) -> Target:
    pinned = " ".join(server.host_key.with_suffix(".pub").read_text().split()[:2])
    made = Target(server.address, server.port, server.user, str(server.key), pinned)
    return made._replace(**changed)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whoever runs the tests has settings and keys of their own."""
    (home := tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def connect(tmp_path: Path) -> partial[object]:
    return partial(handshake.connect, own_known_hosts=tmp_path / "known_hosts")


async def keygen(*arguments: str) -> None:
    await trio.run_process(["ssh-keygen", "-q", *arguments], capture_stdout=True, capture_stderr=True)


async def refused(connect: partial[object], to: Target, **options: object) -> SshFailedError:
    with pytest.raises(SshFailedError) as caught:
        async with connect(to, **options):  # type: ignore[attr-defined]
            pass
    return caught.value


async def test_a_command_runs_in_the_nodes_home(shared: Sshd, connect: partial[object]) -> None:
    async with connect(target(shared)) as connection:
        done = await connection.run("sh -s", b'echo "$HOME"; echo oops >&2; exit 3')
    assert done == (3, f"{shared.home}\n", "oops\n")


async def test_lines_are_passed_on_as_they_come(shared: Sshd, connect: partial[object]) -> None:
    """The second line comes only when the first one was heard."""
    gate = shared.folder / "gate"
    heard: list[str] = []

    def on_line(line: str) -> None:
        heard.append(line)
        gate.touch()

    script = f"echo first; while [ ! -e {shlex.quote(str(gate))} ]; do sleep 0.01; done; echo second"
    with trio.fail_after(10):
        async with connect(target(shared)) as connection:
            await connection.run("sh -s", script.encode(), on_line)
    assert heard == ["first", "second"]


async def test_much_output_on_both_streams_blocks_nothing(shared: Sshd, connect: partial[object]) -> None:
    script = b"head -c 3000000 /dev/zero | tr '\\0' x >&2; head -c 3000000 /dev/zero | tr '\\0' y"
    with trio.fail_after(20):
        async with connect(target(shared)) as connection:
            done = await connection.run("sh -s", script)
    assert (len(done.output), len(done.errors)) == (3_000_000, 3_000_000)


async def test_a_file_is_copied_with_its_mode(shared: Sshd, connect: partial[object], tmp_path: Path) -> None:
    content = os.urandom(3_000_001)
    (tmp_path / "here").write_bytes(content)
    there, heard = shared.home / "there", list[int]()
    async with connect(target(shared)) as connection:
        await connection.upload(tmp_path / "here", str(there), mode=0o755, on_progress=heard.append)
        await connection.write(b"secret", str(shared.home / "token"), mode=0o600)
    assert there.read_bytes() == content
    assert there.stat().st_mode & 0o777 == 0o755
    assert heard == sorted(heard)
    assert heard[-1] == len(content)
    assert (shared.home / "token").stat().st_mode & 0o777 == 0o600


async def test_what_cannot_be_written_says_why(shared: Sshd, connect: partial[object], tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"x")
    async with connect(target(shared)) as connection:
        with pytest.raises(SshFailedError, match="No such file") as caught:
            await connection.upload(tmp_path / "here", str(shared.home / "no" / "folder"), mode=0o644)
    assert caught.value.details["reason"] == "command"


async def test_a_connection_from_there_is_opened(shared: Sshd, connect: partial[object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with connect(target(shared)) as connection:
            channel = await connection.open("127.0.0.1", server.getsockname()[1])
            peer, _ = server.accept()
            peer.sendall(b"hello")
            peer.close()
            assert await channel.receive(10) == b"hello"
            assert await channel.receive(10) == b""
            channel.close()


async def test_a_port_that_is_closed_there_is_an_error(shared: Sshd, connect: partial[object]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with connect(target(shared)) as connection:
            with pytest.raises(SshFailedError):
                await connection.open("127.0.0.1", taken.getsockname()[1])
            assert (await connection.run("true")).code == 0


async def test_leaving_early_closes_the_connection(shared: Sshd, connect: partial[object]) -> None:
    async with connect(target(shared)) as connection:
        with trio.move_on_after(0.2) as patience:
            await connection.run("sleep 60")
        assert patience.cancelled_caught
        assert not connection.is_open
        with pytest.raises(SshFailedError):
            await connection.run("true")


# Who it is.


async def test_an_unknown_host_is_refused_with_its_fingerprint(
    shared: Sshd, connect: partial[object], tmp_path: Path
) -> None:
    unknown = target(shared, host_key=None)
    error = await refused(connect, unknown)
    assert (error.details["reason"], error.details["fingerprint"]) == ("host_key", shared.fingerprint)
    assert shared.fingerprint in error.message
    error = await refused(connect, unknown, accept="SHA256:another")
    assert "SHA256:another was to be accepted" in error.message
    async with connect(unknown, accept=shared.fingerprint) as connection:
        assert (await connection.run("true")).code == 0
    async with connect(unknown) as connection:  # remembered
        assert connection.host_key == target(shared).host_key
    assert (tmp_path / "known_hosts").stat().st_mode & 0o777 == 0o600


async def test_a_host_that_the_user_knows_is_known(
    shared: Sshd, connect: partial[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    known = tmp_path / ".ssh" / "known_hosts"
    known.write_text(f"[{shared.address}]:{shared.port} {target(shared).host_key}\n")
    await keygen("-H", "-f", str(known))  # hashed names
    assert shared.address not in known.read_text()
    async with connect(target(shared, host_key=None)):
        pass


DAMAGED = (
    "just words", "a b c d", "@revoked * ssh-ed25519 AAAA", "|1|x|y ssh-rsa AAAA", "host ssh-ed25519 AAAA",
    "host ssh-ed25519 =", "host ecdsa-sha2-nistp256 AAAAE2VjZHNh", "|1 ssh-rsa", "\xff\xfe", "",
)  # fmt: skip


def test_a_key_that_is_revoked_is_not_trusted(tmp_path: Path, shared: Sshd) -> None:
    file, key = tmp_path / "known_hosts", str(target(shared).host_key)
    for lines, problem in (
        (f"h {key}", None),
        (f"h {key}\n@revoked h {key}", "is revoked"),
        (f"@revoked h {key}", "is revoked"),
        (f"@revoked other {key}\nh {key}", None),
        (f"# a comment\u2028h {key}", "is not known"),
    ):
        file.write_text(lines, encoding="utf-8")
        trust = Trust(SshServer("h", "h", 22, "bee"), file)
        with nullcontext() if problem is None else pytest.raises(HostKeyError, match=problem) as caught:
            assert trust.check(ShownKey(key), None)
        if problem == "is revoked":
            assert caught is not None
            assert "known_hosts line" in caught.value.message
            with pytest.raises(HostKeyError, match="is revoked"):
                trust.check(ShownKey(key), shared.fingerprint)
            with pytest.raises(HostKeyError, match="is revoked"):  # also where it is pinned
                Trust(SshServer("h", "h", 22, "bee", host_key=key), file).check(ShownKey(key), None)


def test_a_line_that_was_cut_takes_no_new_key_along(tmp_path: Path, shared: Sshd) -> None:
    file, key = tmp_path / "known_hosts", str(target(shared).host_key)
    file.write_text(f"other {key}")
    for name in ("h", "g"):
        Trust(SshServer(name, name, 22, "bee"), file).remember(key)
    assert file.read_text() == f"other {key}\nh {key}\ng {key}\n"


async def test_a_damaged_line_of_known_hosts_takes_no_other_along(
    shared: Sshd, connect: partial[object], tmp_path: Path
) -> None:
    ours = f"[{shared.address}]:{shared.port} {target(shared).host_key}"
    lines = [*DAMAGED, f"|1|x|y {target(shared).host_key}", ours, *DAMAGED]
    (tmp_path / "known_hosts").write_text("\n".join(lines), encoding="latin-1")
    async with connect(target(shared, host_key=None)) as connection:
        assert connection.host_key == target(shared).host_key
    (tmp_path / "known_hosts").write_text("\n".join(DAMAGED), encoding="latin-1")
    error = await refused(connect, target(shared, host_key=None))
    assert f"is not known: {shared.fingerprint}" in error.message


@pytest.mark.parametrize("pinned", ["", " ", "ssh-ed25519", "ssh-ed25519 A", "ssh-ed25519 Ä", "\0 \0"])
async def test_a_damaged_key_that_is_pinned_is_an_error_of_that_node(
    shared: Sshd, connect: partial[object], pinned: str
) -> None:
    error = await refused(connect, target(shared, host_key=pinned), accept=shared.fingerprint)
    assert error.details["reason"] == "host_key"
    assert "stored with the node is damaged" in error.message
    assert "remove-node" in (error.hint or "")


async def test_a_changed_key_stops_everything_with_both_fingerprints(connect: partial[object], tmp_path: Path) -> None:
    server = Sshd(tmp_path / "sshd")
    try:
        pinned, before = target(server), server.fingerprint
        server.stop()
        server.new_host_key()
        server.start()
        error = await refused(connect, pinned, accept=server.fingerprint)
        assert error.details["reason"] == "host_key"
        assert before in error.message
        assert server.fingerprint in error.message
        assert f"`-f {tmp_path / 'known_hosts'}`" in (error.hint or "")
    finally:
        server.stop()


async def test_the_key_that_is_known_is_the_one_that_is_asked_for(connect: partial[object], tmp_path: Path) -> None:
    """The server has two, and would show the other one first."""
    server = Sshd(tmp_path / "sshd")
    try:
        rsa = tmp_path / "rsa"
        await keygen("-t", "rsa", "-N", "", "-f", str(rsa))
        server.stop()
        server._options["HostKey"] = f"{server.host_key}\nHostKey {rsa}"
        server.start()
        pinned = " ".join(rsa.with_suffix(".pub").read_text().split()[:2])
        async with connect(target(server, host_key=pinned)) as connection:
            assert connection.host_key == pinned
    finally:
        server.stop()


# Why not.


async def test_a_wrong_key_is_refused(shared: Sshd, connect: partial[object], tmp_path: Path) -> None:
    await keygen("-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    error = await refused(connect, target(shared, key_path=str(tmp_path / "other")))
    assert error.details["reason"] == "auth"
    assert "ssh-copy-id" in (error.hint or "")


@pytest.mark.parametrize(
    ("content", "words"), [(None, "there is no key file"), ("nonsense", "cannot be read"), ("locked", "passphrase")]
)
async def test_a_bad_key_file_is_reported(
    shared: Sshd, connect: partial[object], tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "key"
    if content == "locked":
        await keygen("-t", "ed25519", "-N", "secret", "-f", str(file))
    elif content is not None:
        file.write_text(content)
        file.chmod(0o600)
    error = await refused(connect, target(shared, key_path=str(file)))
    assert error.details["reason"] == "auth"
    assert words in error.message


async def test_the_agents_key_is_offered(
    shared: Sshd, connect: partial[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.run_process, ["ssh-agent", "-D", "-a", path])
        with trio.fail_after(10):
            while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240, PTH110
                await trio.sleep(0.01)
        await trio.run_process(["ssh-add", str(shared.key)], capture_stderr=True)
        async with connect(target(shared, key_path=None)) as connection:
            assert (await connection.run("true")).code == 0
        nursery.cancel_scope.cancel()


async def test_a_usual_key_with_a_passphrase_is_named(
    shared: Sshd, connect: partial[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    await keygen("-t", "ed25519", "-N", "secret", "-f", str(tmp_path / ".ssh" / "id_ed25519"))
    error = await refused(connect, target(shared, key_path=None))
    assert error.details["reason"] == "auth"
    assert "id_ed25519 needs its passphrase" in error.message
    assert "`ssh-add ~/.ssh/id_ed25519`" in (error.hint or "")
    assert "started without an agent: `rbee down`" in (error.hint or "")


async def test_more_keys_than_the_server_takes(
    connect: partial[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    for kind in ("ed25519", "ecdsa", "rsa"):
        await keygen("-t", kind, "-N", "", "-f", str(tmp_path / ".ssh" / f"id_{kind}"))
    server = Sshd(tmp_path / "strict", MaxAuthTries="2")
    try:
        error = await refused(connect, target(server, key_path=None))
    finally:
        server.stop()
    assert error.details["reason"] == "auth"
    assert "the server hung up after 2 keys" in error.message
    assert "--ssh-key" in (error.hint or "")


async def test_a_server_that_runs_something_else_is_reported(connect: partial[object], tmp_path: Path) -> None:
    server = Sshd(tmp_path / "forced", ForceCommand="echo welcome")
    try:
        async with connect(target(server)) as connection:  # type: ignore[attr-defined]
            with pytest.raises(SshFailedError) as caught:
                await remote_script.run(connection, "probe", {})
    finally:
        server.stop()
    assert caught.value.details["reason"] == "command"
    assert "ForceCommand" in (caught.value.hint or "")


async def test_a_closed_port_is_refused(connect: partial[object]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.9", 0))
        error = await refused(connect, Target("127.0.0.9", taken.getsockname()[1], "bee"))
    assert error.details["reason"] == "refused"


async def test_an_unknown_name_is_refused(connect: partial[object]) -> None:
    error = await refused(connect, Target("no-such-host.invalid", 22, "bee"))
    assert error.details["reason"] == "dns"


async def test_a_host_that_says_nothing_is_a_timeout(connect: partial[object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await refused(connect, Target("127.0.0.1", silent.getsockname()[1], "bee"), seconds=0.3)
    assert error.details["reason"] == "timeout"
    assert "0.3 s" in error.message


async def test_another_server_at_the_port_is_reported(connect: partial[object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as web:

        def serve() -> None:
            peer, _ = web.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)
                peer.recv(1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, serve)
            error = await refused(connect, Target("127.0.0.1", web.getsockname()[1], "bee"))
    assert error.details["reason"] == "refused"
    assert "does not speak SSH" in error.message
