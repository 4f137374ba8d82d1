"""Fetches from the open internet: redirects only where they are safe, files resumed where a connection broke.

Everything here blocks, and is called from a thread: files are written and hashed where they are read.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from rbee.errors import DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REDIRECTS: Final = 5
MAX_ANSWER: Final = 64 * 1024 * 1024
"""A repository's list of files; some have ten thousands."""
CONNECT_SECONDS: Final = 10.0
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class BrokenError(Exception):
    """An attempt failed in a way that another one may mend; the message says how, in words."""


class Web:
    """Reads from one site, `home`, and from those that it redirects to; the token goes to that site alone.

    `may_be_private` lets redirects lead to private, loopback and link-local addresses: a stranger's site could
    otherwise have us ask our own network. `stall` is how many seconds without a byte end a request.
    """

    def __init__(self, home: str, token: str | None, *, may_be_private: bool = False, stall: float = 60.0) -> None:
        self._home = urlsplit(home)
        self._token = token
        self._may_be_private = may_be_private
        certificates = self._home.scheme == "https" or not may_be_private
        self._http = httpx.Client(
            verify=ssl.create_default_context() if certificates else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            headers={"User-Agent": "rbee", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(stall, connect=CONNECT_SECONDS),
        )
        self._open: httpx.Response | None = None
        self._is_abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._http.close()

    def abandon(self) -> None:
        """End the request that runs, from another thread: it raises BrokenError."""
        self._is_abandoned = True
        if (response := self._open) is not None and (stream := response.extensions.get("network_stream")) is not None:
            connection = stream.get_extra_info("socket")
            with suppress(OSError):  # it may have ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def json(self, url: str) -> bytes:
        """Return the body of a small answer. Raises BrokenError, or an error of the catalogue that no retry mends."""
        with self.get(url) as response:
            body = bytearray()
            for part in self.parts(response):
                body += part
                if len(body) > MAX_ANSWER:
                    raise DownloadFailedError(f"{self._home.netloc} answers more than any list of files is")
            return bytes(body)

    @contextmanager
    def get(self, url: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """Open a request, following redirects; its status is 200, 206 or 416.

        Raises BrokenError, ModelAccessDeniedError, ModelNotFoundError or DownloadFailedError.
        """
        for _ in range(MAX_REDIRECTS + 1):
            place = urlsplit(url)
            self._check(place)
            request = self._http.build_request("GET", url, headers=(headers or {}) | self._authorization(place))
            try:
                response = self._http.send(request, stream=True)
            except (httpx.TransportError, httpx.InvalidURL) as exc:
                raise BrokenError(_words(exc, place)) from exc
            self._open = response
            try:
                if response.status_code in _REDIRECTS:
                    url = urljoin(url, response.headers.get("Location", ""))
                    continue
                self._heed(response, place)
                yield response
                return
            finally:
                self._open = None
                response.close()
        raise DownloadFailedError(f"{self._home.netloc} redirects in circles")

    def parts(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the body as it comes. Raises BrokenError when it breaks off."""
        try:
            yield from response.iter_raw()
        except httpx.TransportError as exc:
            raise BrokenError("given up" if self._is_abandoned else _words(exc, urlsplit(str(response.url)))) from exc

    def _authorization(self, place: SplitResult) -> dict[str, str]:
        is_home = (place.scheme, place.netloc) == (self._home.scheme, self._home.netloc)
        return {"Authorization": f"Bearer {self._token}"} if self._token is not None and is_home else {}

    def _check(self, place: SplitResult) -> None:
        """Raise DownloadFailedError for an address that we should not ask."""
        if place.netloc == self._home.netloc and place.scheme == self._home.scheme:
            return
        if place.scheme not in ("http", "https") or not place.hostname:
            raise DownloadFailedError(f"{self._home.netloc} redirects to what is no web address")
        if self._home.scheme == "https" and place.scheme != "https":
            raise DownloadFailedError(f"{self._home.netloc} redirects to {place.hostname} without encryption")
        if self._may_be_private:
            return
        try:
            found = socket.getaddrinfo(place.hostname, place.port or place.scheme, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise BrokenError(f"the name {place.hostname} is not known") from exc
        if not all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global for *_, address in found):
            raise DownloadFailedError(
                f"{self._home.netloc} redirects to {place.hostname}, which is in a private network",
                hint="where that is meant: `private_redirects = true` under [hub] in the configuration of the node",
            )

    def _heed(self, response: httpx.Response, place: SplitResult) -> None:
        status, said = response.status_code, response.headers.get("X-Error-Code", "")
        if status in (200, 206, 416):
            return
        host = place.netloc
        if status in (401, 403):
            why = "it is gated: its terms must be accepted first" if said == "GatedRepo" else "it is private or unknown"
            raise ModelAccessDeniedError(
                f"{host} does not give us this model (HTTP {status}): {why}",
                hint="make a token at https://huggingface.co/settings/tokens and give it to the node: HF_TOKEN in the "
                "environment of its hive, or the file ~/.cache/huggingface/token",
                status=status,
            )
        if status == 404:
            raise ModelNotFoundError(f"{host} has no such model or file", status=status)
        if status == 429 or status >= 500:
            raise BrokenError(f"{host} answered HTTP {status}")
        raise DownloadFailedError(f"{host} answered HTTP {status}", status=status)


def _words(exc: Exception, place: SplitResult) -> str:
    host = place.netloc
    match exc:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return f"{host} did not answer in time"
        case httpx.TimeoutException():
            return f"{host} sent nothing for too long"
        case httpx.ConnectError():
            return f"{host} cannot be reached"
        case httpx.InvalidURL():
            return f"{host} is no address"
        case _:
            return f"the connection to {host} was lost"
