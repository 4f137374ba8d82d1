"""docs/nodes.md says of each keyword of ssh_config(5) what becomes of it."""

from __future__ import annotations

import re
import subprocess

import pytest

from rbee.adapters.ssh.settings import keywords
from tests.kit.paths import ROOT

KNOWN_VERSION = (10, 2)
TABLE = (ROOT / "docs" / "nodes.md").read_text().partition("## What of ssh's settings counts")[2]


def told(word: str) -> set[str]:
    """Return the keywords in the rows that say `word` of them."""
    rows = [row.split("|") for row in TABLE.splitlines() if row.startswith("| `")]
    return {name for row in rows if word in row[2] for name in re.findall(r"`([A-Z]\w+)`", row[1])}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("as in ssh", set(keywords.HONOURED) - {"ConnectTimeout"}),
        ("in place of", {"ConnectTimeout"}),
        ("passed over, and rbee says so", set(keywords.SAID)),
        ("said where no key was taken", set(keywords.SAID_OF_KEYS)),
    ],
)
def test_the_table_says_what_becomes_of_a_keyword(words: str, names: set[str]) -> None:
    found = told(words) - (told("as in ssh") if "says so" in words else set())
    assert found == names


def test_each_keyword_is_in_one_place() -> None:
    names = [*keywords.HONOURED, *keywords.SAID, *keywords.SAID_OF_KEYS, *keywords.WITHOUT_EFFECT]
    assert len(names) == len({name.lower() for name in names})


def test_each_keyword_of_this_ssh_is_known() -> None:
    """What `ssh -G` prints are keywords; a version that is newer than the table may have more."""
    try:
        version = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr
        said = subprocess.run(["ssh", "-F", "none", "-G", "x"], check=True, capture_output=True, text=True).stdout
    except OSError:
        pytest.skip("needs OpenSSH's client: apt install openssh-client")
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) > KNOWN_VERSION:
        pytest.skip(f"the table is of OpenSSH 10.2 at most, and this is {version.strip()}")
    assert {line.split()[0].lower() for line in said.splitlines()} <= set(keywords.NAMES)
