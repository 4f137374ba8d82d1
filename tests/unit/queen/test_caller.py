"""Where the queen sends a caller: to the worker itself where that is reached, else through the queen."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.queen.access.identity import CallerIdentity
from rbee.queen.requests.caller import MAX_SESSION, Caller, preferences, says_batch, turn_of

HERE = "http://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("caller", "url", "everywhere", "way"),
    [
        (Caller(), HERE, False, (HERE, True)),
        (Caller(), HERE, True, (HERE, True)),
        (Caller("192.0.2.5", "192.0.2.5"), HERE, False, (HERE, True)),
        (Caller("192.0.2.9", "192.0.2.5"), HERE, False, (HERE, False)),
        (Caller("192.0.2.9", "192.0.2.5"), HERE, True, ("http://192.0.2.5:8001", True)),
        (Caller("2001:db8::9", "2001:db8::5"), HERE, True, ("http://[2001:db8::5]:8001", True)),
        (Caller("192.0.2.9", "192.0.2.5"), "http://127.0.0.2:8001", False, ("http://127.0.0.2:8001", False)),
        (Caller("192.0.2.9", "192.0.2.5"), "http://[::1]:8001", False, ("http://[::1]:8001", False)),
        (Caller("192.0.2.9", "192.0.2.5"), "http://192.0.2.7:8001", False, ("http://192.0.2.7:8001", True)),
        (Caller("192.0.2.9", "192.0.2.5"), "http://attic:8001", False, ("http://attic:8001", True)),
        (
            Caller("192.0.2.9", "192.0.2.5", frozenset({"192.0.2.7"})),
            "http://192.0.2.7:8001",
            False,
            ("http://192.0.2.7:8001", False),
        ),
        (
            Caller("192.0.2.9", "192.0.2.5", frozenset({"192.0.2.5"})),
            HERE,
            True,
            ("http://192.0.2.5:8001", False),
        ),
        (Caller("127.0.0.1", "127.0.0.1", frozenset({"127.0.0.1"})), HERE, False, (HERE, False)),
    ],
)
def test_the_way_to_a_worker(caller: Caller, url: str, everywhere: bool, way: tuple[str, bool]) -> None:
    assert caller.way_to(url, everywhere=everywhere) == way


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", (False, frozenset())),
        ("return=minimal", (False, frozenset())),
        ("relay-if-needed", (True, frozenset())),
        ('relay-if-needed; unreached="127.0.0.1 fd00::1"', (True, frozenset({"127.0.0.1", "fd00::1"}))),
        ('relay-if-needed; unreached=""', (True, frozenset())),
        ('relay-if-needed; unreached="', (True, frozenset())),
    ],
)
def test_what_a_caller_prefers(header: str, found: tuple[bool, frozenset[str]]) -> None:
    assert preferences(header) == found


@pytest.mark.parametrize(
    ("kind", "headers", "turn"),
    [
        ("key", {"X-Session-Id": "a"}, "alice"),
        ("open", {"X-Session-Id": "a"}, "open 192.0.2.9"),
        ("token", {}, "token 192.0.2.9"),
        ("token", {"X-Session-Id": "a"}, "token 192.0.2.9 a"),
        ("local", {"session_id": "b"}, "local 192.0.2.9 b"),
        ("local", {"X-Claude-Code-Session-Id": "c"}, "local 192.0.2.9 c"),
        ("local", {"X-Session-Id": "x" * 5000}, f"local 192.0.2.9 {'x' * MAX_SESSION}"),
    ],
)
def test_slots_go_round_keys_then_sessions_then_addresses(kind: Any, headers: dict[str, str], turn: str) -> None:
    identity = CallerIdentity(kind, "alice" if kind == "key" else kind, "192.0.2.9")
    assert turn_of(identity, headers.get) == turn


@pytest.mark.parametrize(
    ("priority", "is_late"),
    [
        ("u=7", True),
        ("i, u=6", True),
        ("u=7;x, i", True),
        ("u=5", False),
        ("u=1, i", False),
        ("u=77", False),
        ("", False),
        ("\u00fc=7", False),
        ("zu=7", False),
        ("u=" * 5000, False),
    ],
)
def test_what_nobody_waits_for_says_so(priority: str, is_late: bool) -> None:
    assert says_batch({"Priority": priority}.get) is is_late
