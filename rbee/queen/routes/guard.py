"""Asks of each request to the queen whom it comes from, and tells browsers which pages may read its answer."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from quart import g, request

from rbee.adapters import tokens
from rbee.adapters.http.app import client_connection, empty
from rbee.queen.access.decide import AccessRequest, AccessRules, decide
from rbee.queen.access.hosts import is_right_host, is_right_origin
from rbee.queen.access.identity import CallerIdentity

if TYPE_CHECKING:
    from collections.abc import Collection

    from quart import Response
    from quart_trio import QuartTrio

    from rbee.adapters.config import ApiSettings
    from rbee.queen.access.api_keys import ApiKeys
    from rbee.queen.access.decide import RouteKind

INFERENCE: Final = ("/v1/", "/openapi.json")
"""How the paths begin that are for using models; what is neither such a one nor public is administration."""
API_KEY_HEADER: Final = "x-api-key"
_FORWARDED: Final = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"})
"""What a proxy adds, beside `X-Forwarded-…`: its own user is not the one who asks (RFC 7239; RFC 9110, section 7.6.3).

The last three are those of Apache's, Akamai's and Cloudflare's proxies.
"""
_METHODS: Final = "GET, HEAD, POST, DELETE, OPTIONS"
_HEADERS: Final = re.compile(r"[\w!#$%&'*+.^`|~, -]{1,4000}", re.ASCII)
"""Names of headers, with commas in between (RFC 9110, section 5.6.2)."""
_READABLE: Final = "X-Correlation-Id, X-Request-Id, OpenAI-Processing-Ms, Retry-After, Retry-After-Ms, X-Should-Retry"
PREFLIGHT_SECONDS: Final = 600
"""For how long a browser need not ask again."""


class AccessGuard:
    """The rules of one queen, applied to its requests; `public` are the paths that everyone may ask.

    `own_names` are those of this machine, in small letters; more may be added while it runs.
    """

    def __init__(
        self, token: str, keys: ApiKeys, api: ApiSettings, own_names: set[str], public: Collection[str]
    ) -> None:
        self._public = public
        self._rules = AccessRules(
            is_token=lambda shown: tokens.matches(shown, token),
            key_of=keys.identify,
            is_open=api.open,
            origins=api.origins,
            hosts=own_names,
        )

    def add(self, app: QuartTrio) -> None:
        """Have the pages that may use the queen read its answers."""

        @app.after_request
        async def _let_read(response: Response) -> Response:
            if self._kind() != "administration":
                response.vary.add("Origin")
                if self._is_right_page():
                    response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
                    response.headers.setdefault("Access-Control-Expose-Headers", _READABLE)
            return response

    def admit(self) -> Response | None:
        """Let the current request through as somebody's (see `identity`), or answer a browser that asks beforehand."""
        kind = self._kind()
        if (
            request.method == "OPTIONS"
            and kind != "administration"
            and "Access-Control-Request-Method" in request.headers
            and self._is_right_page()
        ):
            return _preflight()
        connection = client_connection()
        g.identity = found = decide(
            AccessRequest(
                kind=kind,
                shown=_shown(kind),
                host=request.headers.get("Host"),
                origin=request.headers.get("Origin"),
                is_from_other_site=_is_from_other_site(),
                address=connection.peer_host,
                is_own_user=lambda: connection.peer_user == os.geteuid() and not _is_passed_on(),
            ),
            self._rules,
        )
        if found.kind in ("token", "key", "local"):
            connection.has_shown_key = True
        return None

    def _kind(self) -> RouteKind:
        if request.path in self._public:
            return "public"
        return "inference" if request.path.startswith(INFERENCE) else "administration"

    def _is_right_page(self) -> bool:
        origin, host = request.headers.get("Origin"), request.headers.get("Host")
        if origin is None or not is_right_host(host, self._rules.hosts):
            return False
        return is_right_origin(origin, host, self._rules.origins)


def identity() -> CallerIdentity:
    """Return whose request it is that is answered; one that was refused is nobody's."""
    found: CallerIdentity = getattr(g, "identity", None) or CallerIdentity("public", "", client_connection().peer_host)
    return found


def _is_passed_on() -> bool:
    """Whether a proxy, which may run as our own user, has made the request for somebody else."""
    names = [name.lower() for name in request.headers.keys()]  # noqa: SIM118 (these have pairs)
    return any(name in _FORWARDED or name.startswith("x-forwarded-") for name in names)


def _is_from_other_site() -> bool:
    """Whether a page of another site wants this for itself, as its picture or the like, which has no `Origin`.

    A link that was clicked is no use by the page (w3c.github.io/webappsec-fetch-metadata).
    """
    headers = request.headers
    return headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate"


def _shown(kind: RouteKind) -> list[str]:
    """Return the keys that the request carries; API keys have a second header, which opens nothing else."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    shown = [given.strip()] if scheme.lower() == "bearer" else []
    if kind == "inference":
        shown.append(request.headers.get(API_KEY_HEADER, "").strip())
    return [one for one in shown if one]


def _preflight() -> Response:
    """Answer the question whether a page may ask (fetch.spec.whatwg.org, CORS-preflight fetch)."""
    response = empty(204)
    response.headers["Access-Control-Allow-Methods"] = _METHODS
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    asked = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADERS.fullmatch(asked):
        response.headers["Access-Control-Allow-Headers"] = asked
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        response.headers["Access-Control-Allow-Private-Network"] = "true"
    return response
