"""What `ssh NAME true` reaches without a question, rbee reaches, and no more: both are tried."""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.ssh import handshake
from rbee.adapters.ssh.agent import Agent
from rbee.adapters.ssh.target import Target
from rbee.errors import SshFailedError
from tests.kit.ssh_home import SshHome, add, agent, keygen
from tests.kit.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGENT_CASES = {
    "named": "IdentityFile {keys}/{kind}",
    "the public half": "IdentityFile {keys}/{kind}.pub\n IdentitiesOnly yes",
    "another socket": "IdentityAgent {agent}\n IdentityFile {keys}/{kind}",
    "no agent": "IdentityAgent none\n IdentityFile {keys}/{kind}",
    "a certificate": "IdentityFile {keys}/{kind}\n CertificateFile {keys}/{kind}-cert.pub\n IdentitiesOnly yes",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("node"), "127.0.0.2")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("gate"), "127.0.0.3")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, node: Sshd) -> Path:
    """A folder with locked keys of each kind, certificates for them, and keys of no use."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ca", "other", "wrong0", "wrong1", "wrong2", "wrong3"):
        keygen("-t", "ed25519", "-N", "", "-f", folder / name)
    for kind in ("ed25519", "ecdsa", "rsa"):
        keygen("-t", kind, "-b", "2048" if kind == "rsa" else "256", "-N", "secret", "-f", folder / kind)
        keygen("-s", folder / "ca", "-I", "bee", "-n", node.user, folder / f"{kind}.pub")
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node: Sshd, gate: Sshd) -> SshHome:
    """A user who knows both machines, with the key of the node."""
    made = SshHome(tmp_path / "home")
    monkeypatch.setenv("HOME", str(made.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made.know(node, gate)
    shutil.copy(node.key, made.ssh / "id")
    shutil.copy(gate.key, made.ssh / "gate")
    return made


async def problem(target: Target, folder: Path, accept: str | None = None) -> SshFailedError | None:
    """Return why rbee does not get there; None where it does."""
    try:
        async with handshake.connect(target, own_known_hosts=folder / "own", accept=accept) as connection:
            assert (await connection.run("true")).code == 0
    except SshFailedError as exc:
        return exc
    return None


def block(name: str, server: Sshd, *lines: str) -> str:
    return "\n ".join([f"Host {name}", f"HostName {server.address}", f"Port {server.port}", *lines]) + "\n"


def at(server: Sshd) -> str:
    return f"[{server.address}]:{server.port}"


# By which way.


@pytest.mark.parametrize("way", ["plain", "jump", "chain", "address", "command", "token", "pattern"])
async def test_the_way(home: SshHome, node: Sshd, gate: Sshd, tmp_path: Path, way: str) -> None:
    key = f"IdentityFile {home.ssh}/gate"
    by_gate = block("gate", gate, key)
    program = f"ssh -F {home.ssh}/config -o BatchMode=yes -W %h:%p gate"
    address = f"{gate.user}@{gate.address}:{gate.port}"
    text = {
        "plain": block("attic", node),
        "jump": block("attic", node, "ProxyJump gate") + by_gate,
        "chain": block("attic", node, "ProxyJump gate,second") + block("second", node) + by_gate,
        "address": block("attic", node, f"ProxyJump {address}") + f"Host {gate.address}\n {key}\n",
        "command": block("attic", node, f"ProxyCommand {program}") + by_gate,
        "token": block("attic", node, "ProxyJump gate-%n") + block("gate-*", gate, key),
        "pattern": block("gate", gate, key, "ProxyJump none") + block("attic", node) + "Host *\n ProxyJump gate\n",
    }[way]
    home.configure(text)
    assert home.asks_nothing("attic")
    assert await problem(Target("attic"), tmp_path) is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("ProxyJump attic", "the ProxyJump of attic leads in a circle"),
        ("ProxyJump nowhere.invalid", "the name nowhere.invalid is not known"),
        ("ProxyJump gate:0", "from 1 to 65535"),
        ("ProxyCommand sh -c 'echo no way >&2; exit 1'", "its ProxyCommand leads nowhere: no way"),
        ("ProxyCommand true", "its ProxyCommand leads nowhere"),
        ("ProxyCommand /nonexistent %h", "its ProxyCommand leads nowhere: .*(not found|No such file)"),
        ("ProxyJump gate", "gate .* was not let in with the key"),
    ],
)
async def test_a_way_that_leads_nowhere(
    home: SshHome, node: Sshd, gate: Sshd, tmp_path: Path, lines: str, words: str
) -> None:
    home.configure(block("attic", node, lines) + block("gate", gate))
    error = await problem(Target("attic"), tmp_path)
    assert error is not None
    assert re.search(words, error.message), error.message


async def test_a_port_that_the_gate_does_not_reach(home: SshHome, node: Sshd, gate: Sshd, tmp_path: Path) -> None:
    by_gate = block("gate", gate, f"IdentityFile {home.ssh}/gate")
    home.configure(f"Host attic\n HostName {node.address}\n Port 1\n ProxyJump gate\n{by_gate}")
    error = await problem(Target("attic"), tmp_path)
    assert error is not None
    assert (error.details["reason"], "says the machine before it" in error.message) == ("refused", True)


async def test_a_gate_that_is_not_known_is_the_one_that_is_named(
    home: SshHome, node: Sshd, gate: Sshd, tmp_path: Path
) -> None:
    """Each machine on the way is accepted by itself, and remembered."""
    home.known_hosts.unlink()
    home.configure(block("attic", node, "ProxyJump gate") + block("gate", gate, f"IdentityFile {home.ssh}/gate"))
    for server in (gate, node):
        error = await problem(Target("attic"), tmp_path)
        assert error is not None
        assert (error.details["host"], error.details["fingerprint"]) == (at(server), server.fingerprint)
        error = await problem(Target("attic"), tmp_path, server.fingerprint)
    assert error is None


async def test_what_was_passed_over_is_said_with_an_error(home: SshHome, node: Sshd, tmp_path: Path) -> None:
    home.configure(f"Match exec true\n User bee\nHost attic\n HostName {node.address}\n Port 1\n")
    error = await problem(Target("attic"), tmp_path)
    assert error is not None
    assert "~/.ssh/config line 1 is passed over: `Match exec` is not decided here" in (error.hint or "")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("PubkeyAuthentication no", "ssh's settings allow no keys for it"),
        ("PreferredAuthentications password", "ssh's settings allow no keys for it"),
        ("PreferredAuthentications password,publickey", None),
        ("HostKeyAlgorithms rsa-sha2-512", "have no host key in common"),
        ("HostKeyAlgorithms rsa-sha2-512,ssh-ed25519", None),
        ("HostKeyAlgorithms -ssh-ed25519*", "have no host key in common"),
        ("HostKeyAlgorithms ssh-dss,ssh-ed448", "HostKeyAlgorithms of ssh's settings names none that rbee has"),
        ("PubkeyAcceptedAlgorithms rsa-*", "there is no key to offer"),
        ("PubkeyAcceptedAlgorithms ssh-ed25519", None),
        ("Ciphers aes192-ctr", None),
        ("Ciphers 3des-cbc", "have no ciphers in common"),
        ("MACs hmac-md5\n Ciphers aes256-ctr", "have no macs in common"),
        ("KexAlgorithms curve25519-sha256", None),
        ("KexAlgorithms +diffie-hellman-group14-sha1", None),
        ("ConnectTimeout 20\n ConnectionAttempts 2", None),
        ("AddressFamily inet6", "the name .* is not known"),
        ("BindAddress 192.0.2.1", "cannot assign requested address"),
        ("UserKnownHostsFile none\n NoHostAuthenticationForLocalhost yes", None),
        ("UserKnownHostsFile none\n NoHostAuthenticationForLocalhost yes\n HostKeyAlias x", "is not known"),
    ],
)
async def test_what_the_settings_allow(
    home: SshHome, node: Sshd, tmp_path: Path, setting: str, words: str | None
) -> None:
    home.configure(block("attic", node, setting))
    is_let = words is None
    assert home.asks_nothing("attic") == is_let
    error = await problem(Target("attic"), tmp_path)
    assert (error is None) == is_let, error
    assert error is None or re.search(str(words), error.message), error.message
    if error is not None and "in common" in error.message:
        assert f"look for {setting.split(maxsplit=1)[0]} in its sshd_config and in ~/.ssh/config" in (error.hint or "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"KexAlgorithms": "curve25519-sha256"}, None),
        ({"Ciphers": "aes256-gcm@openssh.com", "MACs": "hmac-sha2-512-etm@openssh.com"}, None),
        ({"PubkeyAcceptedAlgorithms": "rsa-sha2-256"}, "was not let in with the key"),
        ({"Ciphers": "chacha20-poly1305@openssh.com"}, "no ciphers in common"),
        ({"KexAlgorithms": "sntrup761x25519-sha512@openssh.com"}, "no kex algorithm in common"),
    ],
)
async def test_what_the_server_allows(
    home: SshHome, tmp_path: Path, options: dict[str, str], words: str | None
) -> None:
    """OpenSSH's client has the last two."""
    server = Sshd(tmp_path / "sshd", "127.0.0.5", **options)
    home.know(server)
    shutil.copy(server.key, home.ssh / "id")
    home.configure(block("attic", server))
    try:
        error = await problem(Target("attic"), tmp_path)
    finally:
        server.stop()
    assert (error is None) == (words is None), error
    assert error is None or (str(words) in error.message), error.message


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601, 0o600, 0o400])
async def test_a_key_that_others_may_read_is_not_used(home: SshHome, node: Sshd, tmp_path: Path, mode: int) -> None:
    (home.ssh / "id").chmod(mode)
    home.configure(block("attic", node))
    is_let = mode in (0o600, 0o400)
    assert home.asks_nothing("attic") == is_let
    for key in (None, str(home.ssh / "id")):
        error = await problem(Target("attic", key_path=key), tmp_path)
        assert (error is None) == is_let
        if error is not None:
            assert "the key id is not used, as others may read its file" in error.message
            assert (error.hint or "").startswith(f"`chmod go-rwx {home.ssh}/id`")


async def test_a_key_that_others_may_read_holds_up_no_other(home: SshHome, node: Sshd, tmp_path: Path) -> None:
    shutil.copy(home.ssh / "gate", home.ssh / "open")
    (home.ssh / "open").chmod(0o644)
    home.configure(block("attic", node, f"IdentityFile {home.ssh}/open"))
    assert home.asks_nothing("attic")
    assert await problem(Target("attic"), tmp_path) is None


@pytest.mark.parametrize(
    "setting",
    [
        "Include {pipe}",
        "UserKnownHostsFile {pipe} {known}",
        "GlobalKnownHostsFile {pipe}",
        "CertificateFile {pipe}",
        "IdentityFile {pipe}",
        "UserKnownHostsFile {known} /dev/tty",
        "UserKnownHostsFile {known} /dev/zero",
        "Include /dev/null",
    ],
)
async def test_a_pipe_in_place_of_a_file_holds_nothing_up(
    home: SshHome, node: Sshd, tmp_path: Path, setting: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    home.configure(block("attic", node, setting.format(pipe=tmp_path / "pipe", known=home.known_hosts)))
    assert await problem(Target("attic"), tmp_path) is None


async def test_settings_that_are_a_pipe_say_nothing(home: SshHome, node: Sshd, tmp_path: Path) -> None:
    os.mkfifo(home.ssh / "config")
    home.ssh.joinpath("id").rename(home.ssh / "id_ed25519")
    assert await problem(Target(node.address, node.port), tmp_path) is None


async def test_revoked_keys_in_a_pipe_trust_none(home: SshHome, node: Sshd, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    home.configure(block("attic", node, f"RevokedHostKeys {tmp_path}/pipe"))
    error = await problem(Target("attic"), tmp_path)
    assert error is not None
    assert "RevokedHostKeys cannot be read: it is no file" in error.message


async def test_what_may_let_the_user_in_is_said_with_an_error_of_keys(
    home: SshHome, node: Sshd, gate: Sshd, tmp_path: Path
) -> None:
    home.configure(block("attic", gate, "ControlPath ~/.ssh/%C"))
    error = await problem(Target("attic"), tmp_path)
    assert error is not None
    assert "ControlPath of ssh's settings is passed over" in (error.hint or "")


# Whether it is the machine.


@pytest.mark.parametrize(
    "text", ["{at}  {key}  comment", "{address} {key}", "@cert-authority *.x ssh-ed25519 AAAA…\n{at} {key}", "hashed"]
)
async def test_a_machine_that_is_known(home: SshHome, node: Sshd, tmp_path: Path, text: str) -> None:
    """More forms are tried in tests/unit/adapters/test_known_hosts.py."""
    if text == "hashed":
        keygen("-H", "-f", home.known_hosts)
    else:
        home.known_hosts.write_text(text.format(at=at(node), address=node.address, key=node.public_key))
    home.configure(block("attic", node))
    assert home.asks_nothing("attic")
    assert await problem(Target("attic"), tmp_path) is None


@pytest.mark.parametrize(
    "setting", ["HostKeyAlias Hive", "UserKnownHostsFile {0}/a {0}/b", "GlobalKnownHostsFile {0}/b"]
)
async def test_where_the_settings_look_for_the_key(home: SshHome, node: Sshd, tmp_path: Path, setting: str) -> None:
    (home.ssh / "b").write_text(f"{at(node)} {node.public_key}\n")
    home.known_hosts.write_text(f"hive {node.public_key}\n" if "Alias" in setting else "")
    home.configure(block("attic", node, setting.format(home.ssh)))
    assert home.asks_nothing("attic")
    assert await problem(Target("attic"), tmp_path) is None


@pytest.mark.parametrize(
    ("strict", "state", "is_let"),
    [
        ("accept-new", "new", True),
        ("accept-new", "changed", False),
        ("no", "new", True),
        ("no", "changed", True),
        ("yes", "new", False),
    ],
)
async def test_how_strict_the_user_is(
    home: SshHome, node: Sshd, keys: Path, tmp_path: Path, strict: str, state: str, is_let: bool
) -> None:
    known = f"{at(node)} {(keys / 'other.pub').read_text()}" if state == "changed" else ""
    home.known_hosts.write_text(known)
    home.configure(block("attic", node, f"StrictHostKeyChecking {strict}"))
    assert home.asks_nothing("attic") == is_let
    home.known_hosts.write_text(known)  # OpenSSH has added the key
    assert (await problem(Target("attic"), tmp_path) is None) == is_let
    if (state, is_let) == ("new", True):
        assert node.public_key in (tmp_path / "own").read_text()


@pytest.mark.parametrize(
    ("form", "listed", "is_let"),
    [("text", "node", False), ("text", "other", True), ("krl", "node", False), ("krl", "other", True), ("", "", False)],
)
async def test_keys_that_a_file_revokes(
    home: SshHome, node: Sshd, keys: Path, tmp_path: Path, form: str, listed: str, is_let: bool
) -> None:
    public = node.host_key.with_suffix(".pub") if listed == "node" else keys / "other.pub"
    file = tmp_path / "revoked"
    if form == "krl":
        keygen("-k", "-f", file, public)
    elif form == "text":
        file.write_text(f"# these\n{public.read_text()}")
    home.configure(block("attic", node, f"RevokedHostKeys {file}"))
    assert home.asks_nothing("attic") == is_let
    error = await problem(Target("attic"), tmp_path, node.fingerprint)
    assert (error is None) == is_let
    assert error is None or "RevokedHostKeys" in error.message


async def test_names_are_hashed_where_the_user_wants_that(home: SshHome, node: Sshd, tmp_path: Path) -> None:
    home.known_hosts.unlink()
    home.configure(block("attic", node, "HashKnownHosts yes"))
    assert await problem(Target("attic"), tmp_path, node.fingerprint) is None
    written = (tmp_path / "own").read_text()
    assert written.startswith("|1|")
    assert node.address not in written
    assert await problem(Target("attic"), tmp_path) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-n", "127.0.0.4"], None),
        ([], None),
        (["-n", "127.0.0.5"], "it is for 127.0.0.5"),
        (["-n", "127.0.0.*"], "it is for"),
        (["-n", "127.0.0.4", "-V", "20200101:20200102"], "it has expired"),
        (["-n", "127.0.0.4", "-V", "20990101:20990102"], "it is not valid yet"),
    ],
)
async def test_a_machine_with_a_certificate(
    home: SshHome, keys: Path, tmp_path: Path, options: list[str], words: str | None
) -> None:
    server = Sshd(tmp_path / "certified", "127.0.0.4")
    try:
        keygen("-s", keys / "ca", "-I", "node", "-h", *options, server.host_key.with_suffix(".pub"))
        server.restart(HostCertificate=f"{server.host_key}-cert.pub")
        shutil.copy(server.key, home.ssh / "id")
        home.known_hosts.write_text(f"@cert-authority *.0.4,[127.0.0.*]:* {(keys / 'ca.pub').read_text()}")
        home.configure(block("attic", server))
        assert home.asks_nothing("attic") == (words is None)
        error = await problem(Target("attic"), tmp_path)
    finally:
        server.stop()
    assert (error is None) == (words is None)
    if words is not None and error is not None:
        assert f"has a certificate that proves nothing: {words}" in error.message


async def test_which_authority_signed_it(home: SshHome, keys: Path, tmp_path: Path) -> None:
    server = Sshd(tmp_path / "certified", "127.0.0.4")
    authority, other = (keys / "ca.pub").read_text(), (keys / "other.pub").read_text()
    try:
        keygen("-s", keys / "ca", "-I", "node", "-h", server.host_key.with_suffix(".pub"))
        server.restart(HostCertificate=f"{server.host_key}-cert.pub")
        shutil.copy(server.key, home.ssh / "id")
        home.configure(block("attic", server))
        for text, words in (
            (f"@cert-authority * {other}", "is not known"),
            (f"@cert-authority * {authority}@revoked * {authority}", "is revoked"),
            (f"@cert-authority * {other}\n{at(server)} {server.public_key}", None),
        ):
            home.known_hosts.write_text(text)
            assert home.asks_nothing("attic") == (words is None)
            error = await problem(Target("attic"), tmp_path, server.fingerprint if words == "is revoked" else None)
            assert (words is None and error is None) or (error is not None and str(words) in error.message)
    finally:
        server.stop()


# With which key.


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        *((case, "ed25519") for case in AGENT_CASES),
        ("named", "rsa"),
        ("a certificate", "rsa"),
        ("a certificate", "ecdsa"),
    ],
)
async def test_keys_that_an_agent_holds(
    home: SshHome, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, kind: str
) -> None:
    """The server takes three keys only, and the agent offers five."""
    authorized = keys / f"{kind}.pub"
    if case == "a certificate":
        (authorized := tmp_path / "authorized").write_text(f"cert-authority {(keys / 'ca.pub').read_text()}")
    server = Sshd(tmp_path / "sshd", "127.0.0.5", MaxAuthTries="3", AuthorizedKeysFile=str(authorized))
    home.know(server)
    (home.ssh / "id").unlink()
    home.configure(block("attic", server, AGENT_CASES[case].format(keys=keys, kind=kind, agent=tmp_path / "agent")))
    try:
        with agent(tmp_path / "agent") as environment:
            add(environment, *(keys / f"wrong{number}" for number in range(4)))
            add(environment, keys / kind, passphrase="secret", folder=tmp_path)
            if case != "another socket":
                monkeypatch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
            assert home.asks_nothing("attic") == (case != "no agent")
            error = await problem(Target("attic"), tmp_path)
    finally:
        server.stop()
    assert (error is None) == (case != "no agent"), error
    assert error is None or "needs its passphrase" in error.message


@pytest.mark.parametrize("named", ["rsa", "rsa.pub"])
async def test_the_key_that_is_named_is_looked_for_in_the_agent(
    home: SshHome, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    server = Sshd(tmp_path / "sshd", "127.0.0.5", AuthorizedKeysFile=f"{keys}/rsa.pub", MaxAuthTries="2")
    home.know(server)
    home.configure(block("attic", server))
    target = Target("attic", key_path=str(keys / named))
    try:
        error = await problem(target, tmp_path)
        assert error is not None
        assert "needs its passphrase" in error.message
        assert "started without an agent" in (error.hint or "")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        error = await problem(target, tmp_path)
        assert error is not None
        assert "does not answer this queen: `rbee down`" in (error.hint or "")
        with agent(tmp_path / "agent") as environment:
            add(environment, *(keys / f"wrong{number}" for number in range(4)))
            error = await problem(target, tmp_path)
            assert error is not None
            assert error.hint == f"`ssh-add {keys}/rsa` gives it to the agent"
            add(environment, keys / "rsa", passphrase="secret", folder=tmp_path)
            assert await problem(target, tmp_path) is None
    finally:
        server.stop()


async def test_the_public_half_alone(
    home: SshHome, node: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The private one may be in the agent alone, as one that was forwarded from elsewhere."""
    shutil.copy(node.key.with_suffix(".pub"), public := tmp_path / "only.pub")
    home.configure(block("attic", node))
    target = Target("attic", key_path=str(public))
    error = await problem(target, tmp_path)
    assert error is not None
    assert "only.pub is a public key, and the agent does not hold its private half" in error.message
    with agent(tmp_path / "agent") as environment:
        monkeypatch.setenv("SSH_AUTH_SOCK", environment["SSH_AUTH_SOCK"])
        add(environment, node.key)
        assert await problem(target, tmp_path) is None


@contextmanager
def answering_agent(path: Path, content: bytes) -> Iterator[None]:
    """Have an agent there that answers the first question with `content`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(100)
                peer.sendall(content)

        threading.Thread(target=serve, daemon=True).start()
        yield


@pytest.mark.parametrize("content", [b"", b"\0\0\0\5hello", b"\0\0\0\1\x05"])
async def test_an_agent_that_says_nonsense_has_no_keys(
    home: SshHome, node: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    with answering_agent(tmp_path / "agent", content):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        home.configure(block("attic", node))
        assert await problem(Target("attic"), tmp_path) is None


def test_a_key_that_cannot_be_read_takes_no_other_of_the_agent_along(tmp_path: Path, node: Sshd) -> None:
    good = base64.b64decode(node.key.with_suffix(".pub").read_text().split()[1])
    short = good[:19] + b"\0\0\0\x20short"
    entries = [(short, b"short"), (b"\0\0\0\7unknown", b"unknown"), (b"x", b"x"), (good, b"caf\xe9")]
    packed = b"".join(part for pair in entries for text in pair for part in (struct.pack(">I", len(text)), text))
    answer = b"\x0c" + struct.pack(">I", len(entries)) + packed
    path = tmp_path / "agent"
    with answering_agent(path, struct.pack(">I", len(answer)) + answer), Agent(str(path)) as found:
        assert good in [key.blob for key in found.held]


async def test_a_server_that_takes_no_keys(home: SshHome, tmp_path: Path) -> None:
    server = Sshd(tmp_path / "sshd", "127.0.0.5", PubkeyAuthentication="no", PasswordAuthentication="yes")
    home.know(server)
    home.configure(block("attic", server))
    try:
        error = await problem(Target("attic"), tmp_path)
    finally:
        server.stop()
    assert error is not None
    assert "the server takes no keys" in error.message
    assert "only password" in error.message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("pipe", None, "the key file pipe cannot be read: it is no file"),
        ("cut", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl", "the key file cut cannot be read"),
        ("my key.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\n", "the key file my key.ppk cannot be read"),
        ("empty", "", "the key file empty cannot be read"),
        ("alone.pub", "public", "alone.pub is a public key, and the agent does not hold its private half"),
    ],
)
async def test_a_file_of_the_settings_that_is_no_key_is_named(
    home: SshHome, node: Sshd, tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    path = home.ssh / name
    if content is None:
        os.mkfifo(path)
    else:
        path.write_text(node.key.with_suffix(".pub").read_text() if content == "public" else content)
        path.chmod(0o600)
    (home.ssh / "config").write_text(block("attic", node, f'IdentityFile "{path}"', "IdentitiesOnly yes"))
    error = await problem(Target("attic"), tmp_path)
    assert error is not None
    assert words in error.message
    if "cannot be read" in words:
        assert f"`ssh-keygen -y -f {shlex.quote(str(path))}`" in (error.hint or "")
    home.configure(block("attic", node))
    assert await problem(Target("attic"), tmp_path) is None, "the next one is not held up"
