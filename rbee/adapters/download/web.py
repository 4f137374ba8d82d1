"""Fetches over HTTP: from the internet, with redirects only where they are safe, and from hives of this swarm.

Everything here blocks, and is called from a thread: files are written and hashed where they are read. It has a client
of its own beside `adapters.http` for that reason: one that blocks can be left half-way at any point.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore
import httpx

from rbee.adapters.download import small_answer
from rbee.adapters.download.routes import Routes
from rbee.adapters.download.web_errors import BrokenError
from rbee.errors import DownloadFailedError, ModelAccessDeniedError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REDIRECTS: Final = 5
MAX_RETRY_AFTER_SECONDS: Final = 60
"""The longest Retry-After that is obeyed."""
READ_BYTES: Final = 1024 * 1024
MIN_LARGE_BYTES: Final = 4 * READ_BYTES
CONNECT_SECONDS: Final = 10.0
NEAR_SECONDS: Final = 3.0
"""To connect to a machine of this swarm: one that takes longer is off, or behind a firewall."""
_REDIRECTS: Final = (301, 302, 303, 307, 308)


class Web:
    """Reads from one site, `home`, and from those that it redirects to; the token goes to that site alone.

    `may_be_private` lets redirects lead to private, loopback and link-local addresses: an untrusted site could
    otherwise reach into the user's own network. `stall` is how many seconds without a byte end a request. `is_near`
    means that the site is a daemon of this swarm: no proxy of the environment is asked, no redirect followed.
    Raises DownloadFailedError when `home` is no web address.
    """

    def __init__(
        self, home: str, token: str | None, *, may_be_private: bool = False, stall: float = 60.0, is_near: bool = False
    ) -> None:
        self._home = _split(home)
        self._token = token
        self._may_be_private = may_be_private
        self._is_near = is_near
        self._routes = None if is_near else Routes()
        near = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it speaks plain HTTP, and loading certificates takes 20 ms
        self._http = httpx.Client(
            verify=near,
            trust_env=False,
            transport=self._routes,
            headers={"User-Agent": "rbee", "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(stall, connect=NEAR_SECONDS if is_near else CONNECT_SECONDS),
            limits=httpx.Limits(max_keepalive_connections=0),
        )
        self._lock = threading.Lock()
        self._connected: socket.socket | None = None
        self._is_abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._http.close()
        self._forget()

    def abandon(self) -> None:
        """End the running request, from another thread: it raises BrokenError, and so does every later one.

        A connection that is being made ends once it is made.
        """
        with self._lock:
            self._is_abandoned = True
            if self._connected is not None:
                with suppress(OSError):  # it may have ended by itself
                    self._connected.shutdown(socket.SHUT_RDWR)

    def read(self, url: str) -> bytes:
        """Return the text of a small answer in UTF-8.

        Raises BrokenError, or an error of the catalogue that no retry mends.
        """
        with self.get(url) as response:
            if response.status_code != 200:
                raise BrokenError(f"{host_and_port(self._home)} answered HTTP {response.status_code}")
            try:
                return small_answer.text_of(self.parts(response), response.headers)
            except small_answer.TooLargeError as exc:
                host = host_and_port(self._home)
                raise DownloadFailedError(f"{host} answers more than any list of files is") from exc

    @contextmanager
    def get(self, url: str, headers: dict[str, str] | None = None) -> Iterator[httpx.Response]:
        """Open a request, following redirects; its status is 200, 206 or 416.

        Raises BrokenError, ModelAccessDeniedError, ModelNotFoundError or DownloadFailedError.
        """
        for _ in range(MAX_REDIRECTS + 1):
            address = _split(url)
            self._check(address)
            response = self._send(url, address, (headers or {}) | self._authorization(address))
            try:
                if response.status_code in _REDIRECTS and not self._is_near:
                    url = _join(url, response.headers.get("Location", ""))
                    continue
                self._check_status(response, address)
                yield response
                return
            finally:
                response.close()
                self._forget()
        raise DownloadFailedError(f"{host_and_port(self._home)} redirects in circles")

    def parts(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the body as it comes. Raises BrokenError when it breaks off."""
        try:
            yield from self._large_parts(response)
        except (httpx.TransportError, httpcore.NetworkError, httpcore.TimeoutException) as exc:
            raise self._broken(exc, urlsplit(str(response.url)), response.url) from exc

    def _large_parts(self, response: httpx.Response) -> Iterator[bytes]:
        """Yield the body, of a plain and long one in large pieces, from the connection itself.

        httpx reads 64 kB at a time, and copies each twice: for a file of gigabytes that is half of the work. After its
        first piece nothing of the body is left with h11, which gives out all that it has.
        """
        length = response.headers.get("Content-Length", "")
        pieces = response.iter_raw()
        if response.headers.get("Transfer-Encoding") or not length.isdecimal() or int(length) < MIN_LARGE_BYTES:
            yield from pieces
            return
        left = int(length)
        for piece in pieces:
            left -= len(piece)
            yield piece
            break
        stream = response.extensions["network_stream"]
        while left > 0 and (piece := stream.read(min(READ_BYTES, left), self._http.timeout.read)):
            left -= len(piece)
            yield piece

    def _send(self, url: str, address: SplitResult, headers: dict[str, str]) -> httpx.Response:
        is_direct = True
        opened: list[Any] = []

        def trace(event: str, info: dict[str, Any]) -> None:
            nonlocal is_direct
            if event == "connection.connect_tcp.started":
                # Else a proxy of the environment makes the connection, whose own address may be private.
                is_direct = info["host"] == request.url.raw_host.decode("ascii")
            elif event == "socks.connect_tcp.started":
                is_direct = False
            elif event.endswith(".connect_tcp.complete"):
                opened.append(info["return_value"])
                # Before anything is asked; the name may mean another address than it did a moment ago.
                self._keep(info["return_value"], address, is_direct=is_direct)

        try:
            request = self._http.build_request("GET", url, headers=headers, extensions={"trace": trace})
            response = self._http.send(request, stream=True)
        except BaseException as exc:
            self._forget()
            for stream in opened:  # httpcore leaves one to a SOCKS proxy open
                stream.close()
            match exc:
                case httpx.TransportError():
                    raise self._broken(exc, address, request.url) from exc
                case httpx.InvalidURL() | UnicodeError():
                    where = host_and_port(self._home)
                    raise DownloadFailedError(f"{where} leads to what is no web address") from exc
                case _:
                    raise
        return response

    def _keep(self, stream: Any, address: SplitResult, *, is_direct: bool) -> None:
        """Keep a new connection, unless it leads where it should not."""
        connection = stream.get_extra_info("socket")
        # httpcore waits without end for a SOCKS proxy's first words. Later waits have limits of their own.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(CONNECT_SECONDS), 0))
        peer = str(connection.getpeername()[0])
        with self._lock:
            if self._is_abandoned:
                stream.close()
                raise BrokenError("given up")
            self._connected = connection.dup()  # TLS takes the descriptor over
        if is_direct and not self._is_home(address) and not self._may_be_private and _is_private(peer):
            stream.close()
            raise self._private(address)

    def _forget(self) -> None:
        with self._lock:
            if self._connected is not None:
                self._connected.close()
                self._connected = None

    def _broken(self, exc: Exception, address: SplitResult, url: httpx.URL) -> BrokenError:
        if self._is_abandoned:
            return BrokenError("given up")
        proxy = None if self._routes is None else self._routes.proxy(url)
        return BrokenError(_words(exc, host_and_port(address)) + (f" through {proxy}" if proxy else ""))

    def _is_home(self, address: SplitResult) -> bool:
        return (address.scheme, address.netloc) == (self._home.scheme, self._home.netloc)

    def _authorization(self, address: SplitResult) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token is not None and self._is_home(address) else {}

    def _check(self, address: SplitResult) -> None:
        """Raise DownloadFailedError for an address that must not be asked."""
        if self._is_home(address):
            return
        if self._home.scheme == "https" and address.scheme != "https":
            raise DownloadFailedError(f"{host_and_port(self._home)} redirects to {address.hostname} without encryption")
        if not self._may_be_private and _is_private(address.hostname or ""):
            raise self._private(address)

    def _private(self, address: SplitResult) -> DownloadFailedError:
        return DownloadFailedError(
            f"{host_and_port(self._home)} redirects to {address.hostname}, which is in a private network",
            hint="where that is meant: `private_redirects = true` under [hub] in the settings of the node",
        )

    def _check_status(self, response: httpx.Response, address: SplitResult) -> None:
        status, host = response.status_code, host_and_port(address)
        if status in (200, 206, 416):
            return
        if status == 429 or status >= 500 or not self._is_home(address):
            # Where the site redirects to, an address holds for minutes; the next attempt gets a new one.
            raise BrokenError(f"{host} answered HTTP {status}", after=_pause(response))
        if self._is_near:
            raise DownloadFailedError(f"{host} answered HTTP {status}", status=status)
        if status in (401, 403):
            raise self._denied(status, response.headers.get("X-Error-Code"))
        if status in (404, 410):
            raise ModelNotFoundError(f"{host} has no such model or file", status=status)
        raise DownloadFailedError(f"{host} answered HTTP {status}", status=status)

    def _denied(self, status: int, error_code: str | None) -> ModelAccessDeniedError:
        host = host_and_port(self._home)
        if error_code == "GatedRepo":
            why = "it is gated: its terms must be accepted on its page first"
        elif self._token is not None:
            why = "the token that this node has does not open it"
        else:
            why = "it is private, or there is none of this name"
        return ModelAccessDeniedError(
            f"{host} does not give us this model (HTTP {status}): {why}",
            hint="make a token at https://huggingface.co/settings/tokens and give it to the node: HF_TOKEN in the "
            "environment of its hive, or the file ~/.cache/huggingface/token",
            status=status,
        )


def host_and_port(address: SplitResult) -> str:
    """Return host and port for messages, without the user and password that an address may hold."""
    return address.netloc.rpartition("@")[2]


def _split(url: str) -> SplitResult:
    """Parse a web address. Raises DownloadFailedError for anything else."""
    try:
        address = urlsplit(url)
        is_web = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        is_web = False
    if not is_web:
        raise DownloadFailedError("the hub's address, or where it redirects to, is no web address")
    return address


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""  # which is refused as no address


def _pause(response: httpx.Response) -> int:
    """Return the seconds of a Retry-After header (RFC 9110, section 10.2.3), bounded."""
    error_code = response.headers.get("Retry-After", "")
    return min(int(error_code), MAX_RETRY_AFTER_SECONDS) if re.fullmatch(r"[0-9]{1,9}", error_code) else 0


def _is_private(host: str) -> bool:
    """Whether this is the address of a private network; a host name is not."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global


def _words(exc: Exception, host: str) -> str:
    match exc:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return f"{host} did not answer in time"
        case httpx.TimeoutException() | httpcore.TimeoutException():
            return f"{host} sent nothing for too long"
        case httpx.ConnectError() | httpx.ProxyError():
            return f"{host} cannot be reached"
        case _:
            return f"the connection to {host} was lost"
