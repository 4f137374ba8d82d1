"""RAM in which prompts are to be kept is a part of what a worker needs."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

import pytest

from rbee.adapters import config
from rbee.adapters.daemon import process
from rbee.adapters.store.sqlite import Store
from rbee.hive import tables
from rbee.hive.catalogue.catalogue import Catalogue
from rbee.hive.models.library import Library
from rbee.hive.workers import make_spec
from rbee.wire.hive import SpawnRequest
from tests.kit import paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="headers are read by the engine")
async def test_what_the_settings_say_is_reckoned_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(paths.ROOT / "rbee" / "__main__.py")])
    process.program.cache_clear()
    store = await Store.open(tmp_path / "models.db", tables.MIGRATIONS)
    needed = []
    for cache in ({}, {"ram_mb": 100}):
        settings = config.load(
            {"cache": dict(cache), "paths": {"state_dir": str(tmp_path), "models_dir": str(tmp_path)}}
        )
        library = Library(settings, Catalogue(settings.paths.models, store.transact), "token")
        request = SpawnRequest(model_ref="builtin:bee-stories")
        needed.append((await make_spec.plan(request, settings, library, lambda _event: None)).memory)
    assert needed[1] - needed[0] == 100_000_000
    await store.close()
    process.program.cache_clear()
