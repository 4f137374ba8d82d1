"""The aliases that commands make: kept in a file, through restarts, damage and a full disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from rbee.adapters import config, model_aliases
from rbee.adapters.config import ModelSettings
from rbee.errors import InvalidConfigurationError, InvalidRequestError, NotFoundError, StorageError
from rbee.keeper.command_line import reference
from rbee.queen.registry import aliases as kept
from rbee.queen.registry.aliases import ModelAliases

if TYPE_CHECKING:
    from pathlib import Path

QWEN = "hf:o/r:Q4_K_M"


async def test_they_are_there_again_after_a_restart(tmp_path: Path) -> None:
    settings = ModelSettings(aliases={"fixed": QWEN})
    aliases = ModelAliases(settings, tmp_path)
    changes: list[int] = []
    aliases.on_change = lambda: changes.append(len(aliases.all()))
    await aliases.make("Coder", QWEN)
    await aliases.make("mine", "coder")
    await aliases.make("coder", "mine")
    expected = {"fixed": QWEN, "coder": "mine", "mine": "coder"}
    assert aliases.all() == expected == ModelAliases(settings, tmp_path).all()
    assert await aliases.remove("MINE") == "mine"
    assert changes == [2, 3, 3, 2]
    assert (tmp_path / model_aliases.FILE).stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotFoundError):
        await aliases.remove("mine")


async def test_those_of_the_settings_are_changed_there(tmp_path: Path) -> None:
    aliases = ModelAliases(ModelSettings(aliases={"fixed": QWEN}), tmp_path)
    for change in (lambda: aliases.make("FIXED", QWEN), lambda: aliases.remove("fixed")):
        with pytest.raises(InvalidRequestError, match="one of the settings"):
            await change()


async def test_many_at_once_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_ALIASES", 20)
    aliases = ModelAliases(ModelSettings(), tmp_path)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(aliases.make, f"a{number}", QWEN)
    assert len(model_aliases.load(tmp_path)) == 20
    with pytest.raises(InvalidRequestError, match="there are 20 already"):
        await aliases.make("one-more", QWEN)
    await aliases.make("a1", "a2")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1, "b": "hf:o/r", "": "x"}', "\xff", "[" * 100_000])
def test_a_file_that_is_damaged_has_what_is_sound(tmp_path: Path, content: str) -> None:
    (tmp_path / model_aliases.FILE).write_text(content, encoding="latin-1")
    assert model_aliases.load(tmp_path) == ({"b": "hf:o/r"} if '"b"' in content else {})


async def test_a_disk_that_cannot_be_written_leaves_what_was(tmp_path: Path) -> None:
    await trio.Path(tmp_path / "file").write_text("")
    aliases = ModelAliases(ModelSettings(), tmp_path / "file" / "state")
    with pytest.raises(StorageError):
        await aliases.make("mine", QWEN)
    assert aliases.all() == {}


@pytest.mark.parametrize(
    ("aliases", "said"),
    [("a=b,b=a", "the alias a leads back to itself: a → b → a"), ("hf:x=y", "'hf:x' looks like a reference")],
)
def test_settings_that_cannot_be_are_told(aliases: str, said: str) -> None:
    with pytest.raises(InvalidConfigurationError, match=f"models.aliases: {said}"):
        config.load(environment={"RBEE_MODELS_ALIASES": aliases})


def test_a_command_takes_an_alias_for_a_model(tmp_path: Path) -> None:
    environment = {"RBEE_HOME": str(tmp_path), "RBEE_MODELS_ALIASES": f"fixed={QWEN}", "RBEE_DEFAULTS_MODEL": "coder"}
    settings = config.load(environment=environment)
    with pytest.raises(InvalidRequestError) as error:
        reference.chosen(None, settings)
    assert error.value.message.startswith("`model` under [defaults] (coder, from ")
    (tmp_path / model_aliases.FILE).write_text(json.dumps({"coder": QWEN}))
    for text, found in (("fixed", "fixed"), ("Coder", "Coder"), ("coder@attic", "coder@attic"), (None, "coder")):
        assert reference.chosen(text, settings) == found
    assert reference.chosen(QWEN, settings) == QWEN
    with pytest.raises(InvalidRequestError):
        reference.chosen("codex", settings)
    settings.queen.url = "http://attic:8080"
    assert reference.chosen("codex", settings) == "codex", "a queen elsewhere knows others"
    with pytest.raises(InvalidRequestError):
        reference.chosen("./codex", settings)
