"""The settings file that `rbee install` writes: the built-in defaults, and what docs/settings.md shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rbee.adapters import config
from rbee.keeper.install import settings_file

SETTINGS = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")


def as_in_a_file(settings: config.Settings) -> dict[str, dict[str, Any]]:
    values = msgspec.json.decode(msgspec.json.encode(settings))
    return {section: keys for section, keys in values.items() if isinstance(keys, dict)}


def defaults() -> dict[str, dict[str, Any]]:
    return as_in_a_file(config.Settings())


def with_everything_set(text: str) -> str:
    """Take away the `#` before each setting."""
    return re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)


def read(folder: Path, text: str) -> config.Settings:
    file = folder / "config.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file=str(file))


def test_as_it_is_it_changes_nothing(tmp_path: Path) -> None:
    assert as_in_a_file(read(tmp_path, settings_file.text())) == defaults()
    assert not any(tomllib.loads(settings_file.text()).values())


def test_it_names_every_setting_with_its_default(tmp_path: Path) -> None:
    named = tomllib.loads(with_everything_set(settings_file.text()))
    assert {section: set(values) for section, values in named.items()} == {
        section: set(values) for section, values in defaults().items()
    }
    for section, values in named.items():
        for key, value in values.items():
            default = defaults()[section][key]
            assert default in (None, value), f"{section}.{key}"


def test_its_examples_are_valid(tmp_path: Path) -> None:
    settings = read(tmp_path, with_everything_set(settings_file.text()))
    assert settings.hive.advertise == "192.0.2.7"


def test_it_says_what_the_page_of_settings_says() -> None:
    (shown,) = re.findall(r"```toml\n(.*?)```", SETTINGS, re.DOTALL)
    written = settings_file.text().partition("[queen]")
    lines = [
        [" ".join(line.split()) for line in with_everything_set(text).splitlines()]
        for text in (shown, "".join(written[1:]))
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    "folder", ["/var/lib/rbee/models", "/we ird \"q\" 'a' \\n # ü", "/two\nlines\ttab\x01\x7f", "/\U0001f41d"]
)
def test_the_systems_file_sets_the_folder_for_models(tmp_path: Path, folder: str) -> None:
    settings = read(tmp_path, settings_file.text(Path(folder)))
    assert settings.paths.models == Path(folder)
    assert settings.paths.state_dir == defaults()["paths"]["state_dir"]
