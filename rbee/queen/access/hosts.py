"""Says which host names mean this queen, and which sites' pages may use it: what a browser tells of itself (PURE).

A page of another site can have its visitor's browser ask any address, but the browser says so: in `Origin` from which
site, and in `Host` under which name, also where that name has come to mean our address meanwhile (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_PRIVATE_ENDINGS: Final = (".localhost", ".local", ".internal", ".home.arpa")
"""Names below these are not answered by public servers: RFC 6761, RFC 6762, ICANN's reservation, RFC 8375."""
_APP_SCHEMES: Final = ("app", "file", "tauri", "vscode-file", "vscode-webview")
"""Origins of programs on this machine that show pages of their own; a file in a browser has the origin `null`."""
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")
"""An address or a name, and perhaps a port; browsers write other letters in these too (RFC 3492)."""


def is_right_host(header: str | None, own: Iterable[str]) -> bool:
    """Whether a `Host` header names this machine; `own` are its names in small letters. Ports may be forwarded ones.

    An address is right, whichever it is: there is no name that could have been made to mean another one. So is a name
    that public servers do not answer for: one without a dot, and those for private networks.
    """
    if header is None:
        return True  # HTTP/1.0, which no browser speaks
    if (name := _name(header)) is None:
        return False
    return _address(name) is not None or "." not in name or name.endswith(_PRIVATE_ENDINGS) or name in own


def is_right_origin(header: str, host: str | None, allowed: Iterable[str]) -> bool:
    """Whether a page of the site `header` may use the queen, which it has asked by the name `host`, a right one.

    The queen's own pages may, those of this machine, and programs on it that show pages of their own; beside them the
    sites that are `allowed`, in which `*` stands for any characters.
    """
    origin = header.strip().lower()
    if host is not None and origin in (f"http://{host.strip().lower()}", f"https://{host.strip().lower()}"):
        return True
    scheme, _, rest = origin.partition("://")
    if scheme in _APP_SCHEMES:
        return True
    if scheme in ("http", "https") and _is_this_machine(rest):
        return True
    return any(_pattern(one).fullmatch(origin) for one in allowed)


def _is_this_machine(host: str) -> bool:
    if (name := _name(host)) is None:
        return False
    address = _address(name)
    return address.is_loopback if address is not None else name == "localhost" or name.endswith(".localhost")


def _name(host: str) -> str | None:
    """Return the name or address of a host in small letters, without its port; None for what is neither."""
    found = _HOST.fullmatch(host.strip())
    return None if found is None else (found[1] or found[2]).lower().removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _pattern(allowed: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in allowed.lower().removesuffix("/").split("*")), re.DOTALL)
