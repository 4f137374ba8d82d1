"""The README names every command, and the page of settings every setting with its default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from rbee.adapters import config
from rbee.keeper.command_line import command_table

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
COMMANDS = [
    *(command.name for command in command_table.COMMANDS),
    *(f"workers {command.name}" for command in command_table.WORKERS),
    *(f"models {command.name}" for command in command_table.MODELS),
    *(f"keys {command.name}" for command in command_table.KEYS),
    *(f"setup {command.name}" for command in command_table.SETUP),
    "queen",
    "hive",
    "worker",
]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there(name: str) -> None:
    assert re.search(rf"`rbee {name}\b", README)


def test_how_long_an_unused_worker_stays_is_the_default() -> None:
    said = rf"ends after `?\[timeouts\] idle`?,\s{config.Settings().timeouts.idle:g} s"
    assert re.search(said, README)
    assert re.search(said, command_table.UP)


def settings_block() -> str:
    (block,) = re.findall(r"```toml\n(.*?)```", SETTINGS, re.DOTALL)
    assert isinstance(block, str)
    return block


def defaults() -> dict[str, dict[str, object]]:
    built = msgspec.to_builtins(config.Settings())
    return {section: values for section, values in built.items() if isinstance(values, dict)}


def test_the_settings_shown_are_the_defaults() -> None:
    for section, values in tomllib.loads(settings_block()).items():
        for key, value in values.items():
            default = defaults()[section][key]
            assert value == (list(default) if isinstance(default, tuple) else default), f"{section}.{key}"


def test_every_setting_is_there() -> None:
    """Those without a fixed default stand behind a `#`."""
    shown = re.sub(r"^# (\w+) = .*$", r"\1 = 0", settings_block(), flags=re.MULTILINE)
    found = {section: set(values) for section, values in tomllib.loads(shown).items()}
    assert found == {section: set(values) for section, values in defaults().items()}
