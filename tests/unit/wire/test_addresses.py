"""What the host of a URL means."""

from __future__ import annotations

import pytest

from rbee.wire import addresses


@pytest.mark.parametrize(
    ("host", "is_loopback", "is_unspecified"),
    [
        ("127.0.0.1", True, False),
        ("127.9.9.9", True, False),
        ("::1", True, False),
        ("::ffff:127.0.0.1", True, False),
        ("localhost", True, False),
        ("LocalHost", True, False),
        ("localhost.", True, False),
        ("0.0.0.0", False, True),
        ("::", False, True),
        ("::ffff:0.0.0.0", False, True),
        ("192.0.2.1", False, False),
        ("fe80::1%eth0", False, False),
        ("attic", False, False),
        ("", False, False),
    ],
)
def test_what_a_host_means(host: str, is_loopback: bool, is_unspecified: bool) -> None:
    assert addresses.is_loopback(host) is is_loopback
    assert addresses.is_unspecified(host) is is_unspecified
    assert addresses.is_own(host) is (is_loopback or is_unspecified)


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1"), ("attic", "attic"), ("::1", "::1")],
)
def test_where_this_machine_reaches_it(host: str, reached: str) -> None:
    assert addresses.reachable(host) == reached


@pytest.mark.parametrize(
    ("host", "plain"), [("::ffff:192.0.2.1", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("attic", "attic")]
)
def test_an_address_of_ipv4_is_written_as_one(host: str, plain: str) -> None:
    assert addresses.plain(host) == plain


@pytest.mark.parametrize(
    ("host", "listening", "is_met"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::", True),
        ("127.0.0.1", "::1", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("0.0.0.0", "192.0.2.1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("localhost", "192.0.2.1", False),
        ("attic", "192.0.2.1", True),
    ],
)
def test_what_one_meets_there(host: str, listening: str, is_met: bool) -> None:
    assert addresses.is_met(host, listening) is is_met
