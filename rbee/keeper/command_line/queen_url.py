"""Reads the address of a queen as users write it."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from rbee.wire.addresses import is_unspecified

FORMS: Final = "a queen's address is HOST, HOST:PORT, or a URL as http://HOST:PORT or https://HOST/PATH"
PORT: Final = 8080
"""Of a queen whose address names neither a scheme nor a port."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BROKEN: Final = re.compile(r"https?:(/?[^/0-9]|/?$)", re.IGNORECASE)
_UNSEEN: Final = re.compile(r"[\x00-\x20\x7f]")


def parse(text: str) -> str:
    """Return the base URL that a user means, without a slash at its end. Raises ValueError saying what is wrong."""
    text = text.strip()
    scheme, rest = "http", text
    if _BROKEN.match(text):
        raise ValueError("a URL begins with http:// or https://")
    if found := _SCHEME.match(text):
        scheme, rest = found[1].lower(), text[found.end() :]
    if scheme not in ("http", "https"):
        raise ValueError(f"a queen is reached by http:// or https://, not by {scheme}://")
    if _UNSEEN.search(rest):
        raise ValueError("an address holds no blanks")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise ValueError("an address holds no user name and no password: the token opens the queen")
    if "?" in rest or "#" in rest:
        raise ValueError("an address ends before ? and #")
    host, port = _split(authority)
    if port is None:
        port = PORT if found is None else None
    if is_unspecified(host):
        raise ValueError(f"{host} stands for every address of the machine that listens: name the queen's machine")
    netloc = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    return f"{scheme}://{netloc}{(slash + path).rstrip('/')}"


def _split(authority: str) -> tuple[str, int | None]:
    """Return the host, without brackets, and the port."""
    host, port = authority, ""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address stands in brackets, as in http://[2001:db8::1]:8080")
        port = rest[1:]
        _check_ipv6(host)
    elif authority.count(":") > 1:
        _check_ipv6(authority)
    else:
        host, _, port = authority.partition(":")
    if not host:
        raise ValueError("the host is missing")
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError("a port is a number from 1 to 65535")
    return host.lower(), int(port) if port else None


def _check_ipv6(text: str) -> None:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("not an IPv6 address; one stands in brackets, as in http://[2001:db8::1]:8080") from None
