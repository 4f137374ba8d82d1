"""Settings that change under a queen that runs are told, with what to do; those of the command alone are not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.kit.command import run_rbee
from tests.kit.ports import hold_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = "The queen that runs was started with other settings."


class User:
    """A user with a home and a queen in the background."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / ".config" / "rbee" / "config.toml"
        self.file.parent.mkdir(parents=True)
        self.env = {
            **os.environ,
            "HOME": str(home),
            "RBEE_HOME": str(home / "state"),
            "RBEE_QUEEN_PORT": str(hold_port()),
            "RBEE_HIVE_PORT": str(hold_port()),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "RBEE_TIMEOUTS_DOWNLOAD_DELAYS": "0",
        }

    def run(self, *arguments: str, **environment: str) -> list[str]:
        """Run a command; returns what it wrote to stderr."""
        done = run_rbee(*arguments, env=self.env | environment)
        return done.stderr.splitlines()


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    found = User(tmp_path / "home")
    yield found
    found.run("down")


def told(lines: list[str]) -> str:
    """Return what is told about changed settings; nothing where nothing is."""
    return "\n".join(line for line in lines if line.startswith(WORDS))


def test_what_has_changed_is_told_until_the_queen_is_started_anew(user: User) -> None:
    user.file.write_text("[worker]\nslots = 4\n")
    assert "The queen answers" in user.run("up")[0]
    assert told(user.run("models", "list")) == ""
    user.file.write_text("[worker]\nslots = 2\n[timeouts]\nidle = 60\n")
    expected = (
        f"{WORDS} Once it is started anew (`rbee down`, then `rbee up`): "
        "worker.slots = 2 (it has 4), timeouts.idle = 60 (it has 300)."
    )
    assert told(user.run("models", "list")) == expected
    assert told(user.run("up")) == expected
    user.run("down")
    assert "Models stay loaded until 2 hours after their last request" in user.run("up", "--keep", "2h")[1]
    assert told(user.run("models", "list")) == "", "what --keep has set was meant so"


def test_variables_are_told_where_they_matter_and_never_shown(user: User) -> None:
    user.run("up", HF_TOKEN="hf_first")
    lines = user.run("models", "pull", "hf:bees/model", HF_TOKEN="hf_second", HTTPS_PROXY="http://me:secret@proxy:1")
    (hint,) = [line for line in lines if line.startswith("hint: ")]
    assert "the queen was started without this HF_TOKEN, HTTPS_PROXY" in hint
    assert "`rbee down`, then `rbee up`" in hint
    assert "secret" not in (user.home / "state" / "queen.lock").read_text()
    assert "hf_first" not in (user.home / "state" / "queen.lock").read_text()
    lines = user.run("models", "pull", "hf:bees/model", HF_TOKEN="hf_first")
    assert not [line for line in lines if "was started without" in line]
