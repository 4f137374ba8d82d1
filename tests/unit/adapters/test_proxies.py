"""Which proxy the environment names for an address, and what it must not say."""

from __future__ import annotations

import pytest

from rbee.adapters.download.proxies import choose
from rbee.errors import DownloadFailedError


def chosen(environment: dict[str, str], url: str = "https://hub.example:443") -> str | None:
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    found = choose(scheme, host.strip("[]"), int(port), environment)
    return None if found is None else f"{found.variable} {found.url}"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "HTTPS_PROXY http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": "http://large:2"}, "https_proxy http://small:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://large:2"}, None),
        ({"HTTPS_PROXY": " "}, None),
        ({"ALL_PROXY": "http://any:1", "HTTPS_PROXY": "http://one:2"}, "HTTPS_PROXY http://one:2"),
        ({"ALL_PROXY": "socks5://127.0.0.1:1080"}, "ALL_PROXY socks5://127.0.0.1:1080"),
        ({"all_proxy": "socks5h://127.0.0.1"}, "all_proxy socks5h://127.0.0.1:1080"),
        ({"ALL_PROXY": "socks://127.0.0.1:1080/"}, "ALL_PROXY socks5h://127.0.0.1:1080"),
        ({"HTTPS_PROXY": "proxy:3128"}, "HTTPS_PROXY http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy"}, "HTTPS_PROXY http://proxy:80"),
        ({"HTTPS_PROXY": "//proxy:3128"}, "HTTPS_PROXY http://proxy:3128"),
        ({"HTTPS_PROXY": " HTTP://Proxy.Example:3128/path "}, "HTTPS_PROXY http://proxy.example:3128"),
        ({"HTTPS_PROXY": "https://proxy"}, "HTTPS_PROXY https://proxy:443"),
        ({"HTTPS_PROXY": "http://[::1]:3128"}, "HTTPS_PROXY http://[::1]:3128"),
        ({"HTTPS_PROXY": "http://me:se@cret@proxy:3128"}, "HTTPS_PROXY http://proxy:3128"),
        # Another variable that is wrong does not matter.
        ({"HTTPS_PROXY": "http://proxy:1", "ALL_PROXY": "nonsense://x"}, "HTTPS_PROXY http://proxy:1"),
        ({"HTTP_PROXY": "http://proxy:port"}, None),
        ({"HTTPS_PROXY": "http://proxy:port", "NO_PROXY": "*"}, None),
    ],
)
def test_the_proxy_of_an_address(environment: dict[str, str], expected: str | None) -> None:
    assert chosen(environment) == expected


def test_a_header_that_anybody_may_send_names_no_proxy() -> None:
    """A web server hands a request's `Proxy:` to the programs it starts as HTTP_PROXY (httpoxy)."""
    environment = {"HTTP_PROXY": "http://evil:1", "REQUEST_METHOD": "GET"}
    assert chosen(environment, "http://hub.example:80") is None


def test_user_and_password_are_decoded_and_never_shown() -> None:
    found = choose("https", "hub.example", 443, {"HTTPS_PROXY": "http://b%40e:s%3Aecret@proxy:3128"})
    assert found is not None
    assert (found.user, found.password) == ("b@e", "s:ecret")
    assert str(found) == "the proxy http://proxy:3128 that HTTPS_PROXY names"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("http://proxy:port", "its port is not a number"),
        ("http://proxy:99999", "its port is greater than 65535"),
        ("http://proxy:0", "port 0"),
        ("http://", "no host's name"),
        ("http://:3128", "no host's name"),
        ("http://me:pa#ss@proxy:3128", "%23"),
        ("http://me:pa/ss@proxy:3128", "%2F"),
        ("socks4://proxy:1080", "socks4:// is not supported"),
        ("socks4a://proxy:1080", "socks5 are"),
        ("ftp://proxy:21", "ftp:// is not supported"),
        ('"http://proxy:3128"', "is not supported"),
        ("http://pro xy:3128", "no host's name"),
        ("http://[::1", "the bracket before its address is not closed"),
        ("http://me:pass@[::1:3128", "not closed"),
        ("http://me:pass@[::1]:70000/", "greater than 65535"),
        ("http://prüfung:3128", "no host's name"),
        ("$PROXY", "no host's name"),
        ("PROXY proxy:3128; DIRECT", "its port is not a number"),
    ],
)
def test_what_is_no_proxy_is_refused_by_its_variables_name(value: str, reason: str) -> None:
    with pytest.raises(DownloadFailedError) as caught:
        choose("https", "hub.example", 443, {"HTTPS_PROXY": value})
    assert caught.value.message.startswith("HTTPS_PROXY names no proxy that can be used: ")
    assert reason in caught.value.message
    assert "pa" not in caught.value.message.replace("password", "")
    assert caught.value.hint is not None
    assert "environment of the hive" in caught.value.hint


@pytest.mark.parametrize(
    ("exceptions", "url", "is_direct"),
    [
        ("hub.example", "https://hub.example:443", True),
        ("HUB.Example.", "https://hub.example.:443", True),
        ("example", "https://hub.example:443", True),
        (".example", "https://hub.example:443", True),
        ("*.example", "https://hub.example:443", True),
        ("b.example", "https://hub.example:443", False),
        ("hub.example.org", "https://hub.example:443", False),
        ("localhost,hub.example", "https://hub.example:443", True),
        ("localhost hub.example", "https://hub.example:443", True),
        (" , localhost ;hub.example,", "https://hub.example:443", True),
        ("*", "https://hub.example:443", True),
        ("hub*", "https://hub.example:443", True),
        ("hub.example:443", "https://hub.example:443", True),
        ("hub.example:8443", "https://hub.example:443", False),
        ("https://hub.example", "https://hub.example:443", True),
        ("localhost,[::1]", "http://[::1]:80", True),
        ("localhost,::1", "http://[::1]:80", True),
        ("[::1]:80", "http://[::1]:80", True),
        ("[::1]:81", "http://[::1]:80", False),
        ("localhost,[::1]", "https://hub.example:443", False),
        ("fd00::/8", "http://[fd00::5]:80", True),
        ("[fd00::]/8", "http://[fd00::5]:80", True),
        ("10.0.0.0/8", "http://10.1.2.3:80", True),
        ("10.0.0.0/8", "http://11.1.2.3:80", False),
        ("10.1.2.3/8", "http://10.200.0.1:80", True),
        ("10.0.0.1-10.0.0.9", "http://10.0.0.5:80", True),
        ("10.0.0.1-10.0.0.9", "http://10.0.0.10:80", False),
        ("10.0.*", "http://10.0.7.7:80", True),
        ("127.0.0.1", "http://127.0.0.1:80", True),
        ("127.0.0.1", "http://[::ffff:127.0.0.1]:80", True),
        ("fe80::1%eth0", "http://[fe80::1]:80", True),
        ("0.0.0.1", "http://10.0.0.1:80", False),
        ("<local>", "http://hub:80", True),
        ("<local>", "https://hub.example:443", False),
        ("10.0.0.0/99,[,]:x,///,-,hub.example", "https://hub.example:443", True),
        ("[::1,%%%,::::", "https://hub.example:443", False),
        ("", "https://hub.example:443", False),
    ],
)
def test_what_is_reached_directly(exceptions: str, url: str, is_direct: bool) -> None:
    found = chosen({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": exceptions}, url)
    assert (found is None) == is_direct


def test_the_exceptions_in_small_letters_come_first() -> None:
    environment = {"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "hub.example", "no_proxy": "other.example"}
    assert chosen(environment) is not None
    assert chosen(environment | {"no_proxy": "hub.example"}) is None
