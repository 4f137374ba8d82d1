"""The address of a queen, as users write it."""

from __future__ import annotations

import pytest

from rbee.adapters import config
from rbee.errors import InvalidConfigurationError
from rbee.keeper.command_line.queen_url import parse
from rbee.keeper.session.queen_address import configured


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("box", "http://box:8080"),
        ("box:9000", "http://box:9000"),
        ("Box.Example", "http://box.example:8080"),
        ("my_queen", "http://my_queen:8080"),
        ("192.0.2.5", "http://192.0.2.5:8080"),
        ("  192.0.2.5:80 ", "http://192.0.2.5:80"),
        ("http://box", "http://box"),
        ("http://box/", "http://box"),
        ("HTTP://box:8080//", "http://box:8080"),
        ("https://bees.example", "https://bees.example"),
        ("https://bees.example/rbee/", "https://bees.example/rbee"),
        ("https://bees.example:8443/a/b", "https://bees.example:8443/a/b"),
        ("box/rbee", "http://box:8080/rbee"),
        ("2001:db8::1", "http://[2001:db8::1]:8080"),
        ("[2001:db8::1]", "http://[2001:db8::1]:8080"),
        ("[2001:DB8::1]:9000", "http://[2001:db8::1]:9000"),
        ("http://[2001:db8::1]", "http://[2001:db8::1]"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:8080"),
        ("localhost", "http://localhost:8080"),
    ],
)
def test_what_is_meant(text: str, url: str) -> None:
    assert parse(text) == url
    assert parse(url) == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "host is missing"),
        ("http://", "host is missing"),
        ("http:/box", "begins with http"),
        ("//box", "host is missing"),
        (":8080", "host is missing"),
        ("ssh://box", "not by ssh://"),
        ("ws://box", "not by ws://"),
        ("box:0", "a port is a number"),
        ("box:99999", "a port is a number"),
        ("box:http", "a port is a number"),
        ("http://box:80:81", "not an IPv6 address"),
        ("http://[2001:db8::1", "in brackets"),
        ("http://[box]:80", "not an IPv6 address"),
        ("http://me:secret@box", "no user name and no password"),
        ("http://box?x=1", "before ? and #"),
        ("http://box/#x", "before ? and #"),
        ("two boxes", "no blanks"),
        ("box\n", ""),
        ("bo\x00x", "no blanks"),
        ("0.0.0.0:8080", "name the queen's machine"),
        ("http://[::]:8080", "name the queen's machine"),
    ],
)
def test_what_is_no_address(text: str, said: str) -> None:
    if not said:
        assert parse(text) == "http://box:8080"
        return
    with pytest.raises(ValueError, match=r"[a-z]") as caught:
        parse(text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_wrong_setting_names_its_key() -> None:
    with pytest.raises(InvalidConfigurationError, match=r"queen\.url: a port") as caught:
        configured(config.load(environment={"RBEE_QUEEN_URL": "box:x"}))
    assert "http://HOST:PORT" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("environment", "url", "is_named"),
    [
        ({}, "http://127.0.0.1:8080", False),
        ({"RBEE_QUEEN_URL": ""}, "http://127.0.0.1:8080", False),
        ({"RBEE_QUEEN_HOST": "0.0.0.0", "RBEE_QUEEN_PORT": "9"}, "http://127.0.0.1:9", False),
        ({"RBEE_QUEEN_HOST": "::"}, "http://[::1]:8080", False),
        ({"RBEE_QUEEN_HOST": "192.0.2.5"}, "http://192.0.2.5:8080", False),
        ({"RBEE_QUEEN_URL": "box", "RBEE_QUEEN_HOST": "192.0.2.5"}, "http://box:8080", True),
    ],
)
def test_which_queen_is_meant(environment: dict[str, str], url: str, is_named: bool) -> None:
    assert configured(config.load(environment=environment)) == (url, is_named)


def test_the_file_of_the_token_has_a_short_name() -> None:
    assert str(config.load(environment={"RBEE_TOKEN_FILE": "/a/token"}).token_file) == "/a/token"
