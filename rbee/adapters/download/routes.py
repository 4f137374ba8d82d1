"""Sends each request directly or through a proxy, as the environment says for its address."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx

from rbee.adapters.download import certificates, proxies
from rbee.errors import DownloadFailedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from rbee.adapters.download.proxies import Proxy

_PORTS = {"http": 80, "https": 443}
_LIMITS = httpx.Limits(max_keepalive_connections=0)
"""Each request opens a connection, so that the check of where it leads is never skipped."""


class Routes(httpx.BaseTransport):
    """The ways to addresses; made at their first use, so that a variable that is wrong harms only what it is for."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._certificates: ssl.SSLContext | None = None
        self._transports: dict[Proxy | None, httpx.HTTPTransport] = {}

    def proxy(self, url: httpx.URL) -> Proxy | None:
        """Return the proxy for an address. Raises DownloadFailedError where a variable names none that can be used."""
        return proxies.choose(url.scheme, url.host, url.port or _PORTS.get(url.scheme, 0), self._environment)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self.proxy(request.url)
        if (transport := self._transports.get(proxy)) is None:
            transport = self._transports[proxy] = self._new(proxy)
        return transport.handle_request(request)

    def _new(self, proxy: Proxy | None) -> httpx.HTTPTransport:
        if self._certificates is None:
            self._certificates = certificates.context(self._environment)
        trusted = self._certificates
        if proxy is None:
            return httpx.HTTPTransport(verify=trusted, trust_env=False, limits=_LIMITS)
        login = None if proxy.user is None else (proxy.user, proxy.password)
        try:
            found = httpx.Proxy(proxy.url, auth=login, ssl_context=trusted if proxy.scheme == "https" else None)
            return httpx.HTTPTransport(verify=trusted, trust_env=False, limits=_LIMITS, proxy=found)
        except (httpx.InvalidURL, ValueError) as exc:
            raise DownloadFailedError(
                f"{proxy.variable} names no proxy that can be used: it is no address",
                hint=proxies.HINT,
                variable=proxy.variable,
            ) from exc

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()
