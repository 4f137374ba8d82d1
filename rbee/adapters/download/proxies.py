"""Chooses the proxy that the environment names for an address, as curl and the hub's own tools do (PURE)."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from rbee.errors import DownloadFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SCHEMES: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080, "socks": 1080}
"""What a proxy may speak, and its port where none is named. `socks` is what desktops write; it is version 5."""
_HOST: Final = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+", re.ASCII)
_LAST_PORT: Final = 65535
HINT: Final = "correct the variable in the environment of the hive (the queen's, which starts it), or unset it"


class Proxy(NamedTuple):
    """A proxy, and the variable that names it."""

    variable: str
    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str = ""

    @property
    def url(self) -> str:
        """Its address, without the password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return f"the proxy {self.url} that {self.variable} names"


def choose(scheme: str, host: str, port: int, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for an address; None where it is reached directly.

    Names in small letters come first, and so do those of the scheme. Raises DownloadFailedError, which names the
    variable, for one that names no proxy that can be used.
    """
    for name in (f"{scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if variable not in environment or _is_of_a_request(variable, environment):
                continue
            if not (value := environment[variable].strip()):
                break  # an empty one in small letters takes the other's place: none
            return None if _is_excepted(host, port, environment) else _parse(variable, value)
    return None


def _is_of_a_request(variable: str, environment: Mapping[str, str]) -> bool:
    """Whether a web server sets the variable, from a header that anybody may send (httpoxy)."""
    return variable == "HTTP_PROXY" and "REQUEST_METHOD" in environment


def _parse(variable: str, value: str) -> Proxy:
    scheme, separator, _ = value.partition("://")
    text = value if separator else f"http://{value.removeprefix('//')}"
    scheme = scheme.lower() if separator else "http"
    if scheme not in _SCHEMES:
        raise _refused(variable, f"{scheme}:// is not supported; http, https and socks5 are")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _refused(variable, _why_unreadable(text)) from None
    if not host or not _HOST.fullmatch(host):
        raise _refused(variable, "it holds no host's name")
    if port == 0:
        raise _refused(variable, "port 0 is no port")
    user = None if parts.username is None else unquote(parts.username)
    speaks = "socks5h" if scheme == "socks" else scheme
    return Proxy(variable, speaks, host, port or _SCHEMES[scheme], user, unquote(parts.password or ""))


def _why_unreadable(text: str) -> str:
    """Say what is wrong with an address that cannot be split: its parts are never shown, one may be the password."""
    rest = text.partition("://")[2].rpartition("@")[2]
    if rest.startswith("[") and "]" not in rest:
        return "the bracket before its address is not closed"
    port = re.fullmatch(r"(?:\[[^\]]*\]|[^:]*):([0-9]{1,9})/?", rest)
    if port is not None and int(port[1]) > _LAST_PORT:
        return f"its port is greater than {_LAST_PORT}"
    # What a URL gives a meaning of its own ends the host too early.
    return "its port is not a number; in a password # / ? are written %23 %2F %3F"


def _refused(variable: str, reason: str) -> DownloadFailedError:
    return DownloadFailedError(f"{variable} names no proxy that can be used: {reason}", hint=HINT, variable=variable)


def _is_excepted(host: str, port: int, environment: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names the address: by a name, a part of one, an address, or a range of them."""
    value = environment["no_proxy"] if "no_proxy" in environment else environment.get("NO_PROXY", "")
    host = host.lower().strip("[]").rstrip(".").partition("%")[0]
    return any(_names(entry, host, port) for entry in re.split(r"[\s,;]+", value.lower()) if entry)


def _names(entry: str, host: str, port: int) -> bool:
    entry = entry.rpartition("://")[2]
    if entry == "<local>":
        return "." not in host and ":" not in host
    if found := re.fullmatch(r"\[([^\]]*)\](?::(\d+))?|([^:]+):(\d+)", entry):
        bracketed, its_port, name, other_port = found.groups()
        if (wanted := its_port or other_port) is not None and int(wanted) != port:
            return False
        entry = bracketed if name is None else name
    entry = entry.rstrip(".").partition("%")[0]
    address = _address(host)
    if address is not None:
        return _holds(entry, address) or (any(letter in "*?" for letter in entry) and fnmatch.fnmatchcase(host, entry))
    name = entry.removeprefix("*").removeprefix(".")
    if entry == "*" or host == name:
        return True
    return host.endswith(f".{name}") if name and "*" not in name else fnmatch.fnmatchcase(host, entry)


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an entry is the address, or a range that holds it: 10.0.0.0/8, or 10.0.0.1-10.0.0.9."""
    first, dash, last = entry.partition("-")
    if dash:
        low, high = _address(first), _address(last)
        if low is None or high is None or not low.version == high.version == address.version:
            return False
        return int(low) <= int(address) <= int(high)
    try:
        network = ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
    return address in network


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
