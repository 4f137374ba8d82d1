"""Takes apart what people write for a machine that ssh reaches: [user@]host[:port], or a URL. (PURE)"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

_SCHEME: Final = re.compile(r"(ssh|scp|sftp)://", re.IGNORECASE)
_BRACKETS: Final = re.compile(r"\[([^\[\]]+)\](?::([^:]*))?")


class SshAddress(NamedTuple):
    """A machine, with the user and the port where they were given."""

    host: str
    user: str | None = None
    port: int | None = None


def parse(text: str) -> SshAddress:
    """Return the parts; raises ValueError with the reason, in words that follow the text.

    Two colons and more without brackets are an IPv6 address, which has no port then.
    """
    is_url = (scheme := _SCHEME.match(text)) is not None
    rest = text[scheme.end() :] if scheme is not None else text
    if is_url:
        rest, _, path = rest.partition("/")
        if path:
            raise ValueError("names a path, and a machine has none")
    # The last one parts them: users of a directory service have one in their names.
    user, at, rest = rest.rpartition("@")
    if at and not user:
        raise ValueError("names no user before the @")
    if is_url:
        # RFC 3986, section 3.2.1; OpenSSH takes the parameters of a draft (…;fingerprint=…) for none.
        user, rest = unquote(user.partition(";")[0]), unquote(rest)
        user = user.partition(":")[0]
    port: str | None
    if (found := _BRACKETS.fullmatch(rest)) is not None:
        host, port = found[1], found[2]
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host, port = rest, None
    if not host:
        raise ValueError("names no host")
    return SshAddress(host, user or None, None if port is None else _port(port))


def _port(text: str) -> int:
    if re.fullmatch("[0-9]{1,5}", text) is None or not 1 <= int(text) <= 65535:
        raise ValueError(f"has no port after the colon: {text!r} is not a number from 1 to 65535")
    return int(text)
