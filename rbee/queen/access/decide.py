"""Decides whom a request comes from, and whether it may do what it asks for (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from rbee.errors import ForbiddenError, InvalidApiKeyError, MissingApiKeyError
from rbee.queen.access.hosts import is_right_host, is_right_origin
from rbee.queen.access.identity import CallerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

RouteKind = Literal["public", "inference", "administration"]
"""What a route is for: everyone; who may use models; who may do everything."""


class AccessRules(NamedTuple):
    """What the settings say: whether everyone may infer, further sites, and the names of this machine in small letters.

    `key_of` returns the caller that an API key names, None for one that is unknown, was revoked or has expired.
    """

    is_token: Callable[[str], bool]
    key_of: Callable[[str], CallerIdentity | None]
    is_open: bool = False
    origins: Collection[str] = ()
    hosts: Collection[str] = ()


class AccessRequest(NamedTuple):
    """A request, as far as it matters who makes it.

    `shown` are the keys that it carries, `host` and `origin` these headers; `is_from_other_site`: a browser says that a
    page of another site wants it. `is_own_user` finds out whether a program of the queen's own user on this machine has
    made it; it is asked only where that matters.
    """

    kind: RouteKind
    shown: Sequence[str] = ()
    host: str | None = None
    origin: str | None = None
    is_from_other_site: bool = False
    address: str = ""
    is_own_user: Callable[[], bool] = lambda: False


def decide(request: AccessRequest, rules: AccessRules) -> CallerIdentity:
    """Return whose request it is. Raises ForbiddenError, MissingApiKeyError or InvalidApiKeyError.

    The first question is whether a browser made it for a page that is not ours. The token alone opens under any name:
    programs of the swarm show it, and no page has it.
    """
    if request.kind == "public":
        return CallerIdentity("public", "public", request.address)
    has_token = any(rules.is_token(shown) for shown in request.shown)
    _check_browser(request, rules, has_token=has_token)
    if has_token:
        return CallerIdentity("token", "token", request.address)
    key = next((found for shown in request.shown if (found := rules.key_of(shown)) is not None), None)
    if request.kind == "administration":
        if key is not None:
            raise ForbiddenError(
                f"the key {key.name} is for using models; this needs the swarm's token",
                hint="`rbee token` prints it",
                reason="administration",
            )
        raise _refusal(request, "this needs the header Authorization: Bearer <token>")
    if key is not None:
        return key._replace(address=request.address)
    if request.is_own_user():
        return CallerIdentity("local", "local", request.address)
    if rules.is_open:
        return CallerIdentity("open", "open", request.address)
    raise _refusal(request, "this needs a key: the header Authorization: Bearer <key>, or x-api-key: <key>")


def _check_browser(request: AccessRequest, rules: AccessRules, *, has_token: bool) -> None:
    if request.origin is None:
        is_right = not request.is_from_other_site
    else:
        is_right = is_right_origin(request.origin, request.host, rules.origins)
    if not is_right:
        raise ForbiddenError(
            "pages of this site may not use the queen",
            hint="`origins` under [api] in the queen's settings names the sites that may",
            reason="origin",
        )
    if not has_token and not is_right_host(request.host, rules.hosts):
        raise ForbiddenError(
            "the header Host names another machine than this one",
            hint="`hosts` under [api] in the queen's settings holds further names of it",
            reason="host",
        )


def _refusal(request: AccessRequest, what_is_missing: str) -> MissingApiKeyError | InvalidApiKeyError:
    hint = "`rbee keys create NAME`, on the queen's machine, makes a key" if request.kind == "inference" else None
    if request.shown:
        return InvalidApiKeyError("authentication failed: the key is wrong, or is not valid any more", hint=hint)
    return MissingApiKeyError(what_is_missing, hint=hint)
