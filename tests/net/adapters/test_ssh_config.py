"""ssh's settings, read as OpenSSH reads them: `ssh -G` is asked the same."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

import paramiko
import pytest

from rbee.adapters.ssh.algorithms import chosen
from rbee.adapters.ssh.settings import ssh_config
from rbee.adapters.ssh.target import SshServer, Target
from rbee.adapters.ssh.transport import Transport
from rbee.errors import SshFailedError
from tests.kit.sshd import why_not

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

CASES: Final = {
    "a pattern, and a value that comes first": ("attic", "Host att*\n Port 2201\nHost *\n Port 2202\n User bee\n"),
    "negated": ("attic.lan", "Host *.lan !attic.lan\n Port 2201\nHost !cellar *\n User bee\n"),
    "negated alone": ("attic", "Host !cellar\n Port 2201\n"),
    "several": ("b", "Host a b c\n Port 2201\n"),
    "a question mark": ("node7", "Host node?\n Port 2201\nHost node\n Port 2202\n"),
    "brackets are letters": ("node[7]", "Host node[7]\n Port 2201\n"),
    "brackets are no class": ("node7", "Host node[7]\n Port 2201\n"),
    "letters differ": ("Attic", "Host attic\n Port 2201\n"),
    "a host in capitals": ("a", "Host a\n HostName ATTIC.Lan\n"),
    "equals": ("a", "Host=a\nPort = 2201\n  User=bee\n"),
    "quotes": ("a", 'Host "a" "b c"\n User "bee"\n IdentityFile "/keys/my key"\n'),
    "keywords in any case": ("a", "hOST a\n pORT 2201\n USER bee\n"),
    "tabs, blanks and ends of Windows": ("a", "\tHost\t a \r\n\t Port\t2201 \r\n"),
    "comments": ("a", "# Host b\nHost a # the attic\n Port 2201 # not 22\n#Port 3\n  # User x\n"),
    "before any Host": ("a", "Port 2201\nHost a\n Port 2202\n User bee\n"),
    "HostName with a token": ("a", "Host *\n HostName %h.example.com\n"),
    "HostName with a percent sign": ("a", "Host a\n HostName fe80::1%%eth0\n"),
    "an address": ("fe80::1%lo", "Host fe80::1%lo\n Port 2201\n"),
    "identities add up": ("a", "Host a\n IdentityFile /k/1\nHost *\n IdentityFile /k/2\n IdentityFile /k/1\n"),
    "a jump": ("a", "Host a\n ProxyJump bee@gate:2200,cellar\n"),
    "a jump, then a command": ("a", "Host a\n ProxyJump gate\nHost *\n ProxyCommand nc %h %p\n"),
    "a command, then a jump": ("a", "Host a\n ProxyCommand nc x  'y z' # w\nHost *\n ProxyJump gate\n"),
    "no jump": ("a", "Host a\n ProxyJump none\nHost *\n ProxyJump gate\n"),
    "no command": ("a", "Host a\n ProxyCommand none\nHost *\n ProxyCommand nc %h %p\n"),
    "known hosts": ("a", "Host a\n UserKnownHostsFile /a /b\n GlobalKnownHostsFile /c\n HostKeyAlias HIVE\n"),
    "yes and no": ("a", "Host a\n HashKnownHosts yes\n IdentitiesOnly yes\n StrictHostKeyChecking accept-new\n"),
    "off": ("a", "Host a\n StrictHostKeyChecking off\n"),
    "Match all": ("a", "Match all\n Port 2201\n"),
    "Match host": ("a", "Match host a,b\n Port 2201\nMatch host c\n User bee\n"),
    "Match the host that was found": ("a", "Host a\n HostName a.lan\nMatch host *.lan\n Port 2201\n"),
    "Match the name": ("a", "Host a\n HostName a.lan\nMatch originalhost a\n Port 2201\n"),
    "Match user": ("a", "Match user bee\n Port 2201\nHost a\n User bee\nMatch user bee\n Port 2202\n"),
    "Match not": ("a", "Match !host b host a\n Port 2201\nMatch !originalhost a\n User bee\n"),
    "Match final": ("a", "Match final host a.lan\n Port 2201\nHost a\n HostName a.lan\n"),
    "Match final for all": ("a", "Match final all\n Port 2201\nHost *.lan\n User bee\nHost a\n HostName a.lan\n"),
    "Match with an equals sign": ("a", "Match host=a\n Port 2201\n"),
    "Match, which ends Host": ("a", "Host b\n Port 2201\nMatch host a\n Port 2202\n"),
    "an agent": ("a", "Host a\n IdentityAgent /run/agent\n"),
    "what rbee has no use for": ("a", "Host a\n ForwardAgent yes\n LocalForward 1 b:2\n SendEnv A B\n Port 2201\n"),
    "algorithms": ("a", "Ciphers aes256-ctr,aes128-ctr\nMACs hmac-sha2-512\nHostKeyAlgorithms rsa-sha2-256\n"),
    "keys are exchanged": ("a", "KexAlgorithms ecdh-sha2-nistp384,curve25519-sha256\n"),
    "more algorithms": ("a", "Ciphers +aes128-cbc\nMACs +hmac-sha1-96\nHostKeyAlgorithms +ssh-dss\n"),
    "fewer algorithms": ("a", "Ciphers -*gcm*\nMACs -hmac-sha1,*-etm*\nHostKeyAlgorithms -rsa-*,*-cert-*\n"),
    "keys are not exchanged": ("a", "KexAlgorithms -ecdh-*,diffie-*\n"),
    "better algorithms": ("a", "Ciphers ^aes256-ctr\nMACs ^hmac-sha2-512\nHostKeyAlgorithms ^rsa-sha2-256\n"),
    "keys are rather exchanged": ("a", "KexAlgorithms ^ecdh-sha2-nistp521\n"),
    "algorithms of keys": ("a", "PubkeyAcceptedKeyTypes -ecdsa-*\nRequiredRSASize 3072\n"),
    "no keys": ("a", "Host a\n PubkeyAuthentication no\nHost *\n PubkeyAuthentication yes\n"),
    "patience": ("a", "ConnectTimeout 1m30\nConnectionAttempts 3\nNoHostAuthenticationForLocalhost yes\n"),
    "no limit": ("a", "ConnectTimeout none\nConnectTimeout 5\n"),
    "the address family": ("a", "Host a\n AddressFamily inet6\n BindAddress 127.0.0.3\n"),
}  # fmt: skip


def asked(name: str, config: Path, *options: str) -> dict[str, list[str]]:
    """Return what `ssh -G` says: the values by keyword."""
    said = subprocess.run(["ssh", "-F", config, *options, "-G", "--", name], check=True, capture_output=True, text=True)
    found: dict[str, list[str]] = {}
    for line in said.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def compare(found: SshServer, said: dict[str, list[str]]) -> None:
    def one(keyword: str, default: str = "none") -> str:
        return said.get(keyword, [default])[0]

    assert (found.host, str(found.port), found.user) == (one("hostname"), one("port"), one("user"))
    named = [name for name in said["identityfile"] if not name.startswith("~/.ssh/id_")]
    assert list(found.identity_files or ()) == named
    assert ",".join(found.proxy_jump) == one("proxyjump").replace("none", "")
    if found.proxy_command is None:
        assert one("proxycommand") == "none"
    else:
        assert found.proxy_command == one("proxycommand").replace("%h", found.host).replace("%p", str(found.port))
    if "/a" in one("userknownhostsfile"):
        assert " ".join(map(str, found.known_hosts)) == f"{one('userknownhostsfile')} {one('globalknownhostsfile')}"
    assert (found.host_key_alias or "none") == one("hostkeyalias")
    assert found.is_hashed == (one("hashknownhosts") == "yes")
    assert found.is_identities_only == (one("identitiesonly") == "yes")
    assert found.strict == {"true": "yes", "false": "no"}.get(
        one("stricthostkeychecking"), one("stricthostkeychecking")
    )
    for keyword, setting, has in (
        ("Ciphers", found.algorithms.ciphers, paramiko.Transport._cipher_info),
        ("MACs", found.algorithms.macs, paramiko.Transport._mac_info),
        ("KexAlgorithms", found.algorithms.kex, Transport._kex_info),
        ("HostKeyAlgorithms", found.algorithms.host_keys, paramiko.Transport._key_info),
        ("PubkeyAcceptedAlgorithms", found.algorithms.keys, paramiko.Transport._key_info),
    ):
        names, theirs = chosen(keyword, setting, tuple(has)), one(keyword.lower()).split(",")
        assert set(names) - {"mlkem768x25519-sha256"} == set(theirs) & set(has)
        if setting is not None and setting[0] not in "+-":
            assert names[0] == next(name for name in theirs if name in has)
    assert found.offers_keys == (one("pubkeyauthentication") not in ("no", "false"))
    assert f"{found.connect_seconds or 'none'}" == one("connecttimeout")
    assert [found.attempts, found.smallest_rsa] == [int(one("connectionattempts")), int(one("requiredrsasize"))]
    assert found.is_trusted_here == (one("nohostauthenticationforlocalhost") == "yes")
    assert (found.family, found.bind_address or "none") == (one("addressfamily"), one("bindaddress"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


@pytest.mark.parametrize("case", CASES)
def test_a_name_leads_where_ssh_says(home: Path, case: str) -> None:
    name, text = CASES[case]
    config = home / ".ssh" / "config"
    config.write_text(text)
    found = ssh_config.lookup(Target(name), [config])
    compare(found, asked(name, config))
    assert found.notes == ()


def test_what_is_given_wins_as_on_the_command_line(home: Path) -> None:
    config = home / ".ssh" / "config"
    config.write_text("Match user me\n IdentityFile /k/me\nHost a\n User bee\n Port 2201\n HostName b\n")
    found = ssh_config.lookup(Target("a", 2202, "me"), [config])
    compare(found, asked("a", config, "-l", "me", "-p", "2202"))
    assert (found.has_port, found.has_user) == (False, False)


def test_files_that_are_included(home: Path) -> None:
    ssh, config = home / ".ssh", home / ".ssh" / "config"
    (ssh / "d").mkdir()
    (ssh / "d" / "1.conf").write_text("Host a\n Port 2201\nHost b\n Port 2209\n")
    (ssh / "d" / "2.conf").write_text(f"Include {ssh}/inner\n")
    (ssh / "inner").write_text("User bee\n")
    (ssh / "only_b").write_text("Host a\n IdentityFile /k/wrong\n")
    config.write_text(
        f"Include {ssh}/nothing {ssh}/d/*.conf\n IdentityFile /k/1\nHost b\n Include {ssh}/only_b\n"
        "Host a\n IdentityFile /k/2\n"
    )
    found = ssh_config.lookup(Target("a"), [config])
    compare(found, asked("a", config))
    assert (found.port, found.user, found.identity_files) == (2201, "bee", ("/k/1", "/k/2"))


def test_included_files_are_looked_for_beside_the_settings(home: Path) -> None:
    ssh = home / ".ssh"
    (ssh / "hosts").write_text("Host a\n Port 2201\n")
    (ssh / "more").write_text("Host a\n User bee\n")
    (ssh / "config").write_text("Include hosts ~/.ssh/more\n")
    found = ssh_config.lookup(Target("a"))
    assert (found.port, found.user) == (2201, "bee")


def test_the_users_own_settings_come_first(home: Path, tmp_path: Path) -> None:
    (home / ".ssh" / "config").write_text("Host a\n Port 2201\n")
    (tmp_path / "system").write_text("Host *\n Port 2202\n User bee\n")
    found = ssh_config.lookup(Target("a"), [home / ".ssh" / "config", tmp_path / "system"])
    assert (found.port, found.user) == (2201, "bee")


def test_tokens_and_variables_in_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "/keys")
    (home / ".ssh" / "config").write_text(
        "Host a\n HostName b\n User bee\n Port 2201\n IdentityFile ~/k/%h-%n-%r-%p-%%\n IdentityFile ${KEYS}/%d\n"
        " CertificateFile %d/cert\n UserKnownHostsFile ~/known/%k\n IdentityAgent ~/agent-%i\n ProxyJump %r@gate-%h\n"
    )
    found = ssh_config.lookup(Target("a"))
    assert found.identity_files == (f"{home}/k/b-a-bee-2201-%", f"/keys/{home}")
    assert found.certificate_files == (f"{home}/cert",)
    assert found.known_hosts[0] == home / "known" / "a"
    assert found.identity_agent == f"{home}/agent-{os.getuid()}"
    assert found.proxy_jump == ("bee@gate-b",)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none", None),
        ("SSH_AUTH_SOCK", "/run/usual"),
        ("$OTHER", "/run/other"),
        ("${OTHER}", "/run/other"),
        ("", "/run/usual"),
    ],
)
def test_which_agent(home: Path, monkeypatch: pytest.MonkeyPatch, value: str, expected: str | None) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/usual")
    monkeypatch.setenv("OTHER", "/run/other")
    (home / ".ssh" / "config").write_text(f"Host a\n IdentityAgent {value}\n" if value else "")
    assert ssh_config.lookup(Target("a")).identity_agent == expected


# What is passed over, and said.


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("Match exec true\n Port 1\nHost *\n Port 2201\n", "line 1 is passed over: `Match exec` is not decided here"),
        ("Match host a exec true\n Port 1\nHost *\n Port 2201\n", "`Match exec` is not decided here"),
        ("Match localnetwork 10.0.0.0/8\n Port 1\nHost *\n Port 2201\n", "`Match localnetwork` is not decided here"),
        ("Port 2201\nKnownHostsCommand /bin/x %h\n", "KnownHostsCommand of ssh's settings is passed over"),
        ("Port 2201\nCanonicalizeHostname yes\n", "CanonicalizeHostname of ssh's settings is passed over"),
        ("Port 2201\nBindInterface lo\n", "BindInterface of ssh's settings is passed over"),
        ("Port 2201\nCheckHostIP yes\n", "CheckHostIP of ssh's settings is passed over"),
        ("Port 2201\nVerifyHostKeyDNS yes\n", "VerifyHostKeyDNS of ssh's settings is passed over"),
        ("Port 2201\nSmartcardDevice /usr/lib/x.so\n", "PKCS11Provider of ssh's settings is passed over"),
        ("Port 2201\nHostbasedAuthentication yes\n", "HostbasedAuthentication of ssh's settings is passed over"),
        ("Port 2201\nCASignatureAlgorithms ssh-ed25519\n", "CASignatureAlgorithms of ssh's settings is passed over"),
        ("Port 2201\nConnectTimeout soon\n", "ConnectTimeout soon of ssh's settings is passed over: it is no time"),
        ("Port 2201\nConnectionAttempts x\n", "ConnectionAttempts x of ssh's settings is passed over: it is no number"),
        ("Port 2201\nHostNane b\n", "line 2 is passed over: hostnane is no keyword that is known here"),
        ("Port 2201\nInclude pipe\n", "pipe is passed over: it is no file"),
        ("Port 2201\nInclude folder\n", "folder is passed over: Is a directory"),
        ("Port 99999\nPort 2201\n", "line 1 is passed over: 99999 is no port"),
        ("Port x\nPort 2201\n", "line 1 is passed over: x is no port"),
        ('Port 2201\nUser "bee\n', "line 2 is passed over: a quotation mark has no end"),
        ("Port 2201\nUser\n", "line 2 is passed over: User has no value"),
        ("Port 2201\nIdentityFile /%z\n", "%z in ssh's settings stands for nothing"),
        ("Port 2201\nInclude config\n", "too many files include each other"),
    ],
)
def test_what_is_passed_over_is_said(home: Path, text: str, note: str) -> None:
    os.mkfifo(home / ".ssh" / "pipe")
    (home / ".ssh" / "folder").mkdir()
    (home / ".ssh" / "config").write_text(text)
    found = ssh_config.lookup(Target("a"))
    assert found.port == 2201
    (said,) = found.notes
    assert note in said


@pytest.mark.parametrize(
    "text",
    [
        "Match host b exec true\n Port 1\n",
        "Match !host a exec true\n Port 1\n",
        "CanonicalizeHostname no\n",
        "CheckHostIP false\nPKCS11Provider none\nVerifyHostKeyDNS ask\nProxyUseFdpass no\n",
        "IgnoreUnknown Use*,Some*\nUseKeychain yes\nSomething new\n",
        "RequestTTY force\nRemoteCommand top\nSetEnv A=b\nSendEnv LC_*\nControlPath ~/.ssh/%C\nControlMaster auto\n",
        "Host b\n HostNane c\n",
    ],
)
def test_what_would_not_matter_is_not_said(home: Path, text: str) -> None:
    (home / ".ssh" / "config").write_text(f"{text}Host *\n Port 2201\n")
    found = ssh_config.lookup(Target("a"))
    assert (found.port, found.notes) == (2201, ())


def test_what_may_let_the_user_in_is_said_with_that_error_alone(home: Path) -> None:
    (home / ".ssh" / "config").write_text("ControlPath ~/.ssh/%C\nSecurityKeyProvider /usr/lib/x.so\n")
    assert [note.split()[0] for note in ssh_config.lookup(Target("a")).notes_of_keys] == [
        "ControlPath",
        "SecurityKeyProvider",
    ]


def test_a_tag_opens_the_block_of_its_name(home: Path) -> None:
    """As OpenSSH does from version 9.4 on."""
    (home / ".ssh" / "config").write_text("Host a\n Tag work\nMatch tagged w*\n Port 2201\nMatch tagged x\n User x\n")
    found = ssh_config.lookup(Target("a", user="bee"))
    assert (found.port, found.user, found.notes) == (2201, "bee", ())
    assert ssh_config.lookup(Target("b")).port == 22


def test_a_connection_that_the_settings_refuse(home: Path) -> None:
    """As OpenSSH does from version 10.1 on."""
    (home / ".ssh" / "config").write_text("Host a\n RefuseConnection use the other one\n")
    with pytest.raises(SshFailedError, match="a failed: ssh's settings refuse it: use the other one"):
        ssh_config.lookup(Target("a"))
    assert ssh_config.lookup(Target("b")).port == 22


def test_settings_that_others_may_write_to_are_passed_over(home: Path) -> None:
    config = home / ".ssh" / "config"
    config.write_text("ProxyCommand touch /tmp/x\n")
    config.chmod(0o666)
    found = ssh_config.lookup(Target("a"))
    assert found.proxy_command is None
    assert "chmod go-w ~/.ssh/config" in found.notes[0]


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"Host\n Port 22", b"\0" * 1000, b"=\n==\n= =\n", b"Host [\n Port 1\n"]
)
def test_settings_that_are_none_harm_nothing(home: Path, content: bytes) -> None:
    (home / ".ssh" / "config").write_bytes(content)
    assert ssh_config.lookup(Target("a")).host == "a"


def test_a_mark_of_the_byte_order_is_no_part_of_the_first_line(home: Path) -> None:
    (home / ".ssh" / "config").write_text("\ufeffHost b\n Port 2201\nHost a\n Port 2202\n")
    assert ssh_config.lookup(Target("a")).port == 2202


def test_settings_that_are_a_folder_are_passed_over(home: Path) -> None:
    (home / ".ssh" / "config").mkdir()
    assert "is passed over" in ssh_config.lookup(Target("a")).notes[0]


def test_a_user_without_a_name_has_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    for name in ("LOGNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SshFailedError, match="has no name here") as caught:
        ssh_config.lookup(Target("a"))
    assert "--ssh-user" in (caught.value.hint or "")
    assert ssh_config.lookup(Target("a", user="bee")).user == "bee"
