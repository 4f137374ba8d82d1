"""What people write for a machine."""

from __future__ import annotations

import pytest

from rbee.wire.ssh_address import SshAddress, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attic", ("attic", None, None)),
        ("LocalHost", ("LocalHost", None, None)),
        ("attic:22", ("attic", None, 22)),
        ("bee@attic", ("attic", "bee", None)),
        ("bee@attic:2222", ("attic", "bee", 2222)),
        ("bee@corp.lan@attic", ("attic", "bee@corp.lan", None)),
        ("192.168.1.5:2222", ("192.168.1.5", None, 2222)),
        ("::1", ("::1", None, None)),
        ("fe80::1%eth0", ("fe80::1%eth0", None, None)),
        ("[::1]", ("::1", None, None)),
        ("[::1]:22", ("::1", None, 22)),
        ("bee@[fe80::1%eth0]:2222", ("fe80::1%eth0", "bee", 2222)),
        ("[attic]:2222", ("attic", None, 2222)),
        ("ssh://attic", ("attic", None, None)),
        ("SSH://attic/", ("attic", None, None)),
        ("ssh://bee@attic:2222", ("attic", "bee", 2222)),
        ("ssh://bee@[::1]:2222/", ("::1", "bee", 2222)),
        ("ssh://bee%40corp@attic", ("attic", "bee@corp", None)),
        ("ssh://bee;fingerprint=x@attic", ("attic", "bee", None)),
        ("sftp://attic", ("attic", None, None)),
    ],
)
def test_what_stands_for_a_machine(text: str, expected: tuple[str, str | None, int | None]) -> None:
    assert parse(text) == SshAddress(*expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no host"),
        ("bee@", "names no host"),
        ("@attic", "names no user"),
        ("attic:", "has no port after the colon"),
        ("attic:x", "'x' is not a number"),
        ("attic:0", "from 1 to 65535"),
        ("attic:70000", "from 1 to 65535"),
        ("[::1]:", "has no port after the colon"),
        ("ssh://attic/srv", "names a path"),
        ("ssh://", "names no host"),
        (":22", "names no host"),
    ],
)
def test_what_stands_for_none(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)
