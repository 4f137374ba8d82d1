"""What files of known hosts say of a server; OpenSSH 9.2 says the same of each case."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rbee.adapters.ssh import known_hosts
from rbee.adapters.ssh.target import SshServer
from rbee.adapters.ssh.trust import ShownKey, Trust
from rbee.narrower_errors import HostKeyError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAfHh0cGxoZGBcWFRQTEhEQDw4NDAsKCQgHBgUEAwIB"
CASES = {
    "plain": (f"[attic.lan]:2222 {KEY}", "known"),
    "two blanks": (f"[attic.lan]:2222  {KEY}  a comment", "known"),
    "tabs": (f"\t[attic.lan]:2222\t{KEY}", "known"),
    "several names": (f"other,[attic.lan]:2222,third {KEY}", "known"),
    "a wildcard": (f"[*.lan]:* {KEY}", "known"),
    "question marks": (f"[att??.lan]:2222 {KEY}", "known"),
    "brackets are no class": (f"[[a-z]ttic.lan]:2222 {KEY}", "unknown"),
    "any": (f"* {KEY}", "known"),
    "negated": (f"![attic.lan]:2222,!attic.lan,* {KEY}", "unknown"),
    "negated with its port": (f"![attic.lan]:2222,* {KEY}", "known"),
    "without a port": (f"attic.lan {KEY}", "known"),
    "without a port, by a wildcard": (f"*.lan {KEY}", "known"),
    "another port": (f"[attic.lan]:22 {KEY}", "unknown"),
    "capitals": (f"[ATTIC.lan]:2222 {KEY}", "known"),
    "an authority beside it": (f"@cert-authority *.x ssh-ed25519 AAAA…\n[attic.lan]:2222 {KEY}", "known"),
    "an authority is no key": (f"@cert-authority * {KEY}", "unknown"),
    "revoked": (f"[attic.lan]:2222 {KEY}\n@revoked * {KEY}", "revoked"),
    "revoked first": (f"@revoked attic.lan,[attic.lan]:2222 {KEY}\n[attic.lan]:2222 {KEY}", "revoked"),
    "revoked of others": (f"@revoked other {KEY}\n[attic.lan]:2222 {KEY}", "known"),
    "another is revoked": (f"@revoked * {OTHER}\n[attic.lan]:2222 {KEY}", "known"),
    "an unknown marker": (f"@other [attic.lan]:2222 {KEY}", "unknown"),
    "another key": (f"[attic.lan]:2222 {OTHER}", "changed"),
    "another key too": (f"[attic.lan]:2222 {OTHER}\n[attic.lan]:2222 {KEY}", "known"),
    "another key without a port": (f"attic.lan {OTHER}\n[attic.lan]:2222 {KEY}", "known"),
    "nonsense beside it": (f"a b\n|1|x|y ssh-rsa A\n\xff\n* ssh-ed25519 =\n[attic.lan]:2222 {KEY}", "known"),
    "another type than it says": (f"[attic.lan]:2222 ssh-rsa {KEY.split()[1]}", "unknown"),
    "a key of the first protocol": (f"[attic.lan]:2222 1024 35 1234\n[attic.lan]:2222 {KEY}", "known"),
    "ends of Windows": (f"[attic.lan]:2222 {KEY}\r\n", "known"),
    "a comment": (f"#[attic.lan]:2222 {KEY}", "unknown"),
    "a comment behind blanks": (f"  # [attic.lan]:2222 {KEY}", "unknown"),
    "hashed": (f"|1|AAECAwQFBgcICQoLDA0ODxAREhM=|+n0kZ5O9lSJMnxuhN0jAMo4Hnpw= {KEY}", "unknown"),
    "nothing": ("", "unknown"),
    "no text": ("\0\0\0", "unknown"),
}  # fmt: skip
WORDS = {"unknown": "is not known", "changed": "has changed", "revoked": "is revoked"}


def server(**changes: object) -> SshServer:
    return SshServer("attic", "attic.lan", 2222, "bee", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", CASES)
def test_what_a_file_says(tmp_path: Path, case: str) -> None:
    text, expected = CASES[case]
    (file := tmp_path / "known_hosts").write_text(text, encoding="latin-1", errors="replace")
    trust = Trust(server(known_hosts=(file,)), tmp_path / "own")
    with nullcontext() if expected == "known" else pytest.raises(HostKeyError, match=WORDS[expected]):
        assert trust.check(ShownKey(KEY), None)


@pytest.mark.parametrize("is_hashed", [False, True])
def test_what_is_remembered_is_found(tmp_path: Path, is_hashed: bool) -> None:
    found = server(is_hashed=is_hashed)
    Trust(found, tmp_path / "own").remember(KEY)
    assert ("attic" in (tmp_path / "own").read_text()) != is_hashed
    assert Trust(found, tmp_path / "own").check(ShownKey(KEY), None)
    with pytest.raises(HostKeyError, match="is not known"):
        Trust(SshServer("attic", "attic.lan", 22, "bee"), tmp_path / "own").check(ShownKey(KEY), None)


@pytest.mark.parametrize("strict", ["no", "accept-new"])
def test_a_fingerprint_that_is_given_counts_more_than_lax_settings(tmp_path: Path, strict: str) -> None:
    trust = Trust(server(strict=strict), tmp_path / "own")
    assert not trust.check(ShownKey(KEY), None)
    assert not trust.check(ShownKey(KEY), known_hosts.fingerprint(KEY))
    with pytest.raises(HostKeyError, match="was to be accepted"):
        trust.check(ShownKey(KEY), known_hosts.fingerprint(OTHER))
    pinned = Trust(server(strict=strict, host_key=OTHER), tmp_path / "own")
    with pytest.raises(HostKeyError, match="has changed"):
        pinned.check(ShownKey(KEY), known_hosts.fingerprint(OTHER))


def test_the_alias_has_no_port(tmp_path: Path) -> None:
    (tmp_path / "own").write_text(f"hive {KEY}\n")
    assert Trust(server(host_key_alias="hive"), tmp_path / "own").check(ShownKey(KEY), None)
    (tmp_path / "own").write_text(f"[attic.lan]:2222 {KEY}\n")
    with pytest.raises(HostKeyError, match="the host key of hive is not known"):
        Trust(server(host_key_alias="hive"), tmp_path / "own").check(ShownKey(KEY), None)


def test_the_hint_names_the_file_of_the_key(tmp_path: Path) -> None:
    for key, file in ((KEY, "ed25519"), (_rsa(), "rsa"), ("ecdsa-sha2-nistp256 AAAAE2VjZHNh", "ecdsa")):
        with pytest.raises(HostKeyError) as caught:
            Trust(server(), tmp_path / "own").check(ShownKey(key), None)
        assert f"`ssh-keygen -lf /etc/ssh/ssh_host_{file}_key.pub`" in (caught.value.hint or "")


def test_keys_that_are_known_are_asked_for(tmp_path: Path) -> None:
    offered = tuple(paramiko.Transport._key_info)  # those of certificates too
    (file := tmp_path / "own").write_text(f"[attic.lan]:2222 {_rsa()}\n")
    chosen = Trust(server(), file).algorithms(offered)
    assert chosen[0].startswith("rsa-sha2-")
    assert not any("-cert-" in name for name in chosen)
    file.write_text(f"@cert-authority * {KEY}\n")
    assert "-cert-" in Trust(server(), file).algorithms(offered)[0]
    pinned = Trust(server(host_key=KEY), file).algorithms(offered)
    assert (pinned[0], "-cert-" in pinned[-1]) == ("ssh-ed25519", True)


def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    found = known_hosts.find("attic.lan", [tmp_path / "folder", tmp_path / "none", tmp_path / "folder" / "x"])
    assert found == known_hosts.Known()


def _rsa() -> str:
    key = rsa.generate_private_key(65537, 2048).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
