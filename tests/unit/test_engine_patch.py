"""The engine's source is changed where it is the one that the change was made for, and nowhere else."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "build")
    return importlib.import_module("engine_patch")


def source(patch: Any, tree: Path, *parts: str) -> Path:
    path: Path = tree / patch.FILE
    path.parent.mkdir(parents=True)
    path.write_text("".join(parts), encoding="utf-8")
    return path


def test_each_place_is_replaced(patch: Any, tmp_path: Path) -> None:
    path = source(patch, tmp_path, *patch.REPLACEMENTS)
    patch.apply(tmp_path)
    assert path.read_text(encoding="utf-8") == "".join(patch.REPLACEMENTS.values())


@pytest.mark.parametrize("times", [0, 2])
def test_another_source_is_refused_and_left_as_it_is(patch: Any, tmp_path: Path, times: int) -> None:
    first, *others = patch.REPLACEMENTS
    path = source(patch, tmp_path, first * times, *others)
    before = path.read_text(encoding="utf-8")
    with pytest.raises(patch.StepFailed, match=r"the engine's source has changed"):
        patch.apply(tmp_path)
    assert path.read_text(encoding="utf-8") == before
