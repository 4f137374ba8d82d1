"""The certificates that are trusted when something is fetched from the internet."""

from __future__ import annotations

import errno
import os
import ssl
from typing import TYPE_CHECKING, Final

import httpx

from rbee.adapters.files import home, regular
from rbee.errors import DownloadFailedError, InvalidConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Those of OpenSSL, of Python's requests, with which the hub's own tools are written, and of curl."""
_KEY_LOG: Final = "SSLKEYLOGFILE"


def context(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Return a context that trusts what Mozilla does, this system, and what the environment names.

    A company's proxy may have certificates of its own. Raises DownloadFailedError, which names the variable, for a
    file that holds none.
    """
    try:
        found = httpx.create_ssl_context(trust_env=False)
    except OSError as exc:
        raise _refused(_KEY_LOG, f"a file, which cannot be written: {_reason(exc)}") from exc
    for variable in VARIABLES:
        if value := environment.get(variable):
            _check(variable, value)
    found.load_default_certs()
    # Most companies name one file in all of them, and reading it takes 25 ms.
    named: dict[str, str] = {}
    for variable in VARIABLES:
        if value := environment.get(variable):
            for path in value.split(os.pathsep) if variable == "SSL_CERT_DIR" else [value]:
                named.setdefault(path, variable)
    for path, variable in named.items():
        _load(found, variable, path)
    return found


def _check(variable: str, value: str) -> None:
    """Refuse a pipe: OpenSSL would wait for its writer."""
    try:
        regular.opened(home.expanded(value)).close()
    except (OSError, ValueError, InvalidConfigurationError) as exc:
        if isinstance(exc, OSError) and exc.errno == errno.EINVAL:
            raise _refused(variable, "what is no file") from exc


def _load(found: ssl.SSLContext, variable: str, value: str) -> None:
    try:
        path = home.expanded(value)
        if path.is_dir():
            found.load_verify_locations(capath=path)
        else:
            found.load_verify_locations(cafile=path)
    except (OSError, ValueError, InvalidConfigurationError) as exc:  # of which SSLError is one
        what = "a folder" if variable == "SSL_CERT_DIR" else "a file"
        raise _refused(variable, f"{what}, which holds no certificates that can be read: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        return "it is no file in PEM format"
    return exc.strerror or "it cannot be opened" if isinstance(exc, OSError) else "it is no path"


def _refused(variable: str, what: str) -> DownloadFailedError:
    return DownloadFailedError(
        f"{variable} names {what}",
        hint="correct the variable in the environment of the hive (the queen's, which starts it), or unset it",
        variable=variable,
    )
