"""Whom a request to the queen comes from, and what that opens: each combination of what may be known of it."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import pytest

from rbee.errors import ForbiddenError, InvalidApiKeyError, MissingApiKeyError, ModelAccessDeniedError, RbeeError
from rbee.queen.access.decide import AccessRequest, AccessRules, RouteKind, decide
from rbee.queen.access.hosts import is_right_host, is_right_origin
from rbee.queen.access.identity import CallerIdentity

KINDS: tuple[RouteKind, ...] = ("public", "inference", "administration")
SHOWN = {
    "nothing": (),
    "token": ("T",),
    "key": ("K",),
    "wrong": ("W",),
    "wrong, key": ("W", "K"),
    "key, token": ("K", "T"),
}
HOSTS = {"right": "localhost:8080", "foreign": "evil.example:8080", "none": None}
ORIGINS = {
    "right": ("http://localhost:3000", False),
    "allowed": ("https://chat.example", True),
    "foreign": ("https://evil.example", True),
    "foreign picture": (None, True),
    "none": (None, False),
}
"""Each with whether the browser says that it comes from another site."""
ALICE = CallerIdentity("key", "alice")


class Case(NamedTuple):
    kind: RouteKind
    shown: str
    host: str
    origin: str
    is_own_user: bool
    is_open: bool


CASES = [Case(*each) for each in product(KINDS, SHOWN, HOSTS, ORIGINS, (False, True), (False, True))]


def outcome(case: Case) -> str:
    """Return the kind of the caller, or the code with the reason."""
    rules = AccessRules(
        is_token=lambda shown: shown == "T",
        key_of=lambda shown: ALICE if shown == "K" else None,
        is_open=case.is_open,
        origins=("https://chat.example",),
    )
    request = AccessRequest(
        kind=case.kind,
        shown=SHOWN[case.shown],
        host=HOSTS[case.host],
        origin=ORIGINS[case.origin][0],
        is_from_other_site=ORIGINS[case.origin][1],
        address="192.0.2.7",
        is_own_user=lambda: case.is_own_user,
    )
    try:
        return decide(request, rules).kind
    except RbeeError as exc:
        return f"{exc.code} {exc.details.get('reason', '')}".strip()


def test_what_is_public_is_everybodys() -> None:
    assert {outcome(case) for case in CASES if case.kind == "public"} == {"public"}


def test_a_page_of_another_site_gets_nothing_whatever_it_shows() -> None:
    found = {outcome(case) for case in CASES if case.kind != "public" and "foreign" in case.origin}
    assert found == {"FORBIDDEN origin"}


def test_under_a_foreign_name_the_token_alone_opens() -> None:
    for case in CASES:
        if case.kind == "public" or "foreign" in case.origin or case.host != "foreign":
            continue
        assert outcome(case) == ("token" if "token" in case.shown else "FORBIDDEN host"), case


TRUSTED = [case for case in CASES if case.host != "foreign" and "foreign" not in case.origin]


def test_the_token_alone_administers() -> None:
    expected = {
        "nothing": "MISSING_API_KEY",
        "token": "token",
        "key": "FORBIDDEN administration",
        "wrong": "INVALID_API_KEY",
        "wrong, key": "FORBIDDEN administration",
        "key, token": "token",
    }
    for case in TRUSTED:
        if case.kind == "administration":
            assert outcome(case) == expected[case.shown], case


def test_who_may_infer() -> None:
    for case in TRUSTED:
        if case.kind != "inference":
            continue
        if "token" in case.shown:
            expected = "token"
        elif "key" in case.shown:
            expected = "key"
        elif case.is_own_user:
            expected = "local"
        elif case.is_open:
            expected = "open"
        else:
            expected = "MISSING_API_KEY" if case.shown == "nothing" else "INVALID_API_KEY"
        assert outcome(case) == expected, case


@pytest.mark.parametrize("shown", [(), ("W",)])
def test_who_lacks_a_key_is_told_what_makes_one(shown: tuple[str, ...]) -> None:
    rules = AccessRules(lambda _: False, lambda _: None)
    with pytest.raises(RbeeError) as caught:
        decide(AccessRequest("inference", shown), rules)
    assert "`rbee keys create NAME`" in (caught.value.hint or "")


def test_the_owner_is_looked_up_only_where_it_matters() -> None:
    def ask() -> bool:
        raise AssertionError

    rules = AccessRules(lambda shown: shown == "T", lambda shown: ALICE if shown == "K" else None)
    for kind, shown in (("inference", "T"), ("inference", "K"), ("administration", "T"), ("public", "W")):
        assert decide(AccessRequest(kind, (shown,), is_own_user=ask), rules)
    with pytest.raises(MissingApiKeyError):
        decide(AccessRequest("administration", is_own_user=ask), rules)
    with pytest.raises(InvalidApiKeyError):
        decide(AccessRequest("administration", ("W",), is_own_user=ask), rules)
    with pytest.raises(ForbiddenError):
        decide(AccessRequest("inference", host="evil.example", is_own_user=ask), rules)


def test_a_caller_has_a_name_for_the_queue_and_an_address() -> None:
    rules = AccessRules(lambda shown: shown == "T", lambda shown: ALICE if shown == "K" else None, is_open=True)
    found = decide(AccessRequest("inference", ("K",), address="192.0.2.7"), rules)
    assert (found.name, found.caller, found.address) == ("alice", "alice", "192.0.2.7")
    found = decide(AccessRequest("inference", address="192.0.2.7"), rules)
    assert (found.name, found.caller) == ("open", "open 192.0.2.7"), "strangers wait as their addresses do"


@pytest.mark.parametrize(
    "header",
    [
        "localhost", "localhost:8080", "LOCALHOST:1", "localhost.", "app.localhost:8080", "127.0.0.1:8080",
        "[::1]:8080", "[::1]", "192.168.1.5:8080", "10.0.0.9", "203.0.113.9:80", "[2001:db8::1]:8080", "attic",
        "attic:8080", "attic.local", "host.docker.internal:8080", "bees.home.arpa", "bees.example:8080",
        "BEES.example.", None,
    ],
)  # fmt: skip
def test_a_right_host(header: str | None) -> None:
    assert is_right_host(header, {"bees.example"})


@pytest.mark.parametrize(
    "header",
    [
        "", " ", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "1.2.3",
        "bees.example.evil", "xbees.example", ".local.evil.example", "a@localhost", "localhost/evil.example",
        "[::1", "[evil.example]:80", "localhost:80:80", "evil.example#.local", "127.1.1",
    ],
)  # fmt: skip
def test_a_foreign_host(header: str) -> None:
    assert not is_right_host(header, {"bees.example"})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:8080"), ("https://localhost", None), ("http://127.0.0.1:5173", "x"),
        ("http://[::1]:3000", "x"), ("http://chat.localhost:1", "x"), ("http://attic:8080", "attic:8080"),
        ("https://attic:8080", "ATTIC:8080"), ("vscode-webview://0abc", "x"), ("tauri://localhost", "x"),
        ("file://", "x"), ("app://obsidian.md", "x"), ("https://chat.example", "x"), ("https://CHAT.example", "x"),
        ("chrome-extension://abcdef", "x"), ("http://team.example:8123", "x"),
    ],
)  # fmt: skip
def test_a_right_origin(origin: str, host: str | None) -> None:
    allowed = ("https://chat.example", "chrome-extension://*", "http://team.example:*")
    assert is_right_origin(origin, host, allowed)


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "https://evil.example", "http://localhost.evil.example", "http://attic:8081", "http://attic",
        "http://127.0.0.1.evil.example", "https://chat.example.evil", "https://xchat.example", "http://chat.example",
        "moz-extension://abc", "http://localhost@evil.example", "http://[::1].evil.example", "javascript://localhost",
    ],
)  # fmt: skip
def test_a_foreign_origin(origin: str) -> None:
    assert not is_right_origin(origin, "attic:8080", ("https://chat.example",))


def test_everything_may_be_allowed() -> None:
    assert is_right_origin("null", "x", ("*",))
    assert is_right_origin("https://evil.example", "x", ("*",))


WHOLE = "hf:o/r:Q4_K_M"
DEFAULT = "hf:o/secret:Q8_0"
"""What any name stands for that nobody knows, with `unknown_model = "default"`."""


@pytest.mark.parametrize(
    ("allowed", "asked", "reference", "may"),
    [
        ((), "anything", DEFAULT, True),
        ((WHOLE,), WHOLE, WHOLE, True),
        ((WHOLE,), "", WHOLE, True),
        ((WHOLE,), "hf:O/R:q4_k_m", WHOLE, True),
        ((WHOLE,), "r:Q4_K_M", WHOLE, True),
        ((WHOLE,), "hf:o/r:Q8_0", "hf:o/r:Q8_0", False),
        ((WHOLE,), "hf:o/r", "hf:o/r", False),
        (("hf:o/r",), "hf:o/r:Q8_0", "hf:o/r:Q8_0", True),
        (("hf:o/r",), "hf:o/r/file.gguf", "hf:o/r/file.gguf", True),
        (("hf:o/r",), "hf:o/rest", "hf:o/rest", False),
        (("o/r",), WHOLE, WHOLE, True),
        (("small",), " Small@attic", WHOLE, True),
        (("small",), "small:latest", WHOLE, True),
        (("small", "big"), "big", WHOLE, True),
        (("hf:o/r",), "alias", WHOLE, True),
        (("alias",), "alias", WHOLE, True),
        (("alias",), WHOLE, WHOLE, False),
        (("small",), "small:x", DEFAULT, False),
        (("small",), "small/x", DEFAULT, False),
        (("local",), "local/secret", DEFAULT, False),
        (("small",), "", DEFAULT, False),
    ],
)
def test_a_key_is_for_some_models(allowed: tuple[str, ...], asked: str, reference: str, *, may: bool) -> None:
    caller = CallerIdentity("key", "alice", models=frozenset(allowed))
    assert caller.may_use(reference, asked) == may
    if may:
        caller.check_model(reference, asked)
        return
    with pytest.raises(ModelAccessDeniedError, match=f"the key alice is not for the model {asked}") as caught:
        caller.check_model(reference, asked)
    assert caught.value.status == 403
