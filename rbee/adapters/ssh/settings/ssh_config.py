"""Finds out by ssh's settings where a name leads, and how (ssh_config(5))."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pwd
import re
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rbee.adapters.ssh.algorithms import Algorithms
from rbee.adapters.ssh.settings import keywords
from rbee.adapters.ssh.settings.config_reader import SYSTEM, USER, ConfigReader
from rbee.adapters.ssh.target import SSH_PORT, SshServer
from rbee.errors import SshFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rbee.adapters.ssh.target import Target

USER_KNOWN: Final = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
GLOBAL_KNOWN: Final = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_STRICT: Final = {"off": "no", "no": "no", "false": "no", "accept-new": "accept-new", "yes": "yes", "true": "yes"}
_YES: Final = ("yes", "true")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def lookup(target: Target, files: Sequence[Path] = (USER, SYSTEM)) -> SshServer:
    """Return where the target leads: what it says itself, else what the settings say. Blocks; raises SshFailedError."""
    local_user = _local_user()
    reader = ConfigReader(target.host, target.user, local_user)
    reader.read(files)
    options = reader.options

    def first(keyword: str) -> str | None:
        return options[keyword][0] if keyword in options else None

    user = target.user or first("user") or local_user
    if not user:
        raise SshFailedError(
            f"SSH to {target} failed: user {os.geteuid()} has no name here, and none was given for that machine",
            hint="give --ssh-user, for `rbee setup add-node` and `update-node`",
            reason="auth",
        )
    port = target.port or int(first("port") or SSH_PORT)
    host = reader.host.lower()
    jump = first("proxyjump")
    jump = None if jump is None or jump.lower() == "none" else jump
    tokens = _tokens(target.host, host, port, user, local_user, first("hostkeyalias"), jump or "")
    replaced = partial(_replaced, tokens=tokens, note=reader.note)
    file = partial(_file, replaced=replaced)
    command = first("proxycommand")
    known = [
        *options.get("userknownhostsfile", USER_KNOWN),
        *options.get("globalknownhostsfile", GLOBAL_KNOWN),
    ]
    named = options.get("identityfile")
    alias = first("hostkeyalias")
    revoked = first("revokedhostkeys")
    found = SshServer(
        name=target.host,
        host=host,
        port=port,
        user=user,
        has_port=target.port is None,
        has_user=target.user is None,
        key_path=target.key_path,
        host_key=target.host_key,
        identity_files=None if named is None else tuple(file(name) for name in named if name.lower() != "none"),
        certificate_files=tuple(map(file, options.get("certificatefile", ()))),
        is_identities_only=(first("identitiesonly") or "no").lower() in _YES,
        identity_agent=_agent(first("identityagent"), file),
        proxy_jump=tuple(part.strip() for part in replaced(jump).split(",")) if jump else (),
        proxy_command=None if command is None or command.lower() == "none" else replaced(command),
        known_hosts=tuple(Path(file(name)) for name in known if name.lower() not in ("none", "/dev/null")),
        host_key_alias=None if alias is None else alias.lower(),
        revoked_host_keys=None if revoked is None or revoked.lower() == "none" else Path(file(revoked)),
        is_hashed=(first("hashknownhosts") or "no").lower() in _YES,
        strict=_STRICT.get((first("stricthostkeychecking") or "ask").lower(), "ask"),
        family=(first("addressfamily") or "any").lower(),
        bind_address=first("bindaddress"),
        algorithms=Algorithms(
            kex=first("kexalgorithms"),
            ciphers=first("ciphers"),
            macs=first("macs"),
            host_keys=first("hostkeyalgorithms"),
            keys=first("pubkeyacceptedalgorithms"),
        ),
        offers_keys=_offers_keys(first("pubkeyauthentication"), first("preferredauthentications")),
        smallest_rsa=_number(reader, "RequiredRSASize") or 1024,
        is_trusted_here=(first("nohostauthenticationforlocalhost") or "no").lower() in _YES,
        connect_seconds=_seconds(reader, "ConnectTimeout"),
        attempts=_number(reader, "ConnectionAttempts") or 1,
    )
    if (words := first("refuseconnection")) is not None:
        raise SshFailedError(
            f"SSH to {found} failed: ssh's settings refuse it: {words}",
            hint="RefuseConnection in ~/.ssh/config says so",
            reason="refused",
        )
    # The last: reading values makes some too.
    notes, of_keys = (
        tuple(f"{name} of ssh's settings is passed over" for name in reader.passed_over(names))
        for names in (keywords.SAID, keywords.SAID_OF_KEYS)
    )
    return dataclasses.replace(found, notes=(*reader.notes, *notes), notes_of_keys=of_keys)


def _offers_keys(allowed: str | None, preferred: str | None) -> bool:
    is_off = allowed is not None and allowed.lower() in ("no", "false")
    return not is_off and (preferred is None or "publickey" in preferred.lower().split(","))


def _number(reader: ConfigReader, name: str) -> int | None:
    """Return the number that a keyword names; None where it names none, which is noted."""
    if (text := reader.options.get(name.lower(), [""])[0]) and not text.isdecimal():
        reader.note(f"{name} {text} of ssh's settings is passed over: it is no number")
    return int(text) if text.isdecimal() else None


def _seconds(reader: ConfigReader, name: str) -> float | None:
    """Return the time that a keyword names (sshd_config(5), TIME FORMATS); None where it names none."""
    text = reader.options.get(name.lower(), ["none"])[0].lower()
    if text == "none":
        return None
    if re.fullmatch(r"([0-9]{1,6}[smhdw]?)+", text) is None:
        reader.note(f"{name} {text} of ssh's settings is passed over: it is no time")
        return None
    parts = re.findall(r"([0-9]+)([smhdw]?)", text)
    return sum(int(number) * _UNITS[unit or "s"] for number, unit in parts) or None


def _local_user() -> str:
    """Return the name of the user that runs this; empty for one that has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("LOGNAME") or os.environ.get("USER") or ""


def _tokens(
    name: str, host: str, port: int, user: str, local_user: str, alias: str | None, jump: str
) -> dict[str, Callable[[], str]]:
    """Return what stands for each letter behind a percent sign (ssh_config(5), TOKENS)."""
    here = socket.gethostname()
    return {
        "%": lambda: "%",
        "C": lambda: hashlib.sha1(f"{here}{host}{port}{user}{jump}".encode(), usedforsecurity=False).hexdigest(),
        "d": lambda: os.path.expanduser("~"),  # noqa: PTH111
        "h": lambda: host,
        "i": lambda: str(os.getuid()),
        "j": lambda: jump,
        "k": lambda: alias or name,
        "L": lambda: here.partition(".")[0],
        "l": lambda: here,
        "n": lambda: name,
        "p": lambda: str(port),
        "r": lambda: user,
        "u": lambda: local_user,
    }


def _replaced(text: str, *, tokens: dict[str, Callable[[], str]], note: Callable[[str], None]) -> str:
    def value(found: re.Match[str]) -> str:
        if (token := tokens.get(found[1])) is None:
            note(f"%{found[1]} in ssh's settings stands for nothing")
            return found[0]
        return token()

    return re.sub("%(.)", value, text)


def _file(text: str, *, replaced: Callable[[str], str]) -> str:
    """Return an absolute path: with the home folder, variables of the environment, and tokens."""
    expanded = re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", lambda found: os.environ.get(found[1], found[0]), text)
    path = replaced(os.path.expanduser(expanded))  # noqa: PTH111
    return os.path.abspath(os.path.join(os.path.expanduser("~/.ssh"), path)) if path.startswith(".") else path  # noqa: PTH100, PTH111, PTH118


def _agent(named: str | None, file: Callable[[str], str]) -> str | None:
    """Return the socket of the agent; None for no agent."""
    if named is None or named == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if named.lower() == "none":
        return None
    if named.startswith("$") and not named.startswith("${"):
        return os.environ.get(named[1:]) or None
    return file(named) or None
