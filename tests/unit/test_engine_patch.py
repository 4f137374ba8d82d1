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


def source(patch: Any, tree: Path, times: int = 1) -> dict[Path, str]:
    """Write what is replaced, the first place of the last file `times`; returns the files with their texts."""
    texts = {tree / name: "".join(places) for name, places in patch.REPLACEMENTS.items()}
    path, places = tree / list(patch.REPLACEMENTS)[-1], list(list(patch.REPLACEMENTS.values())[-1])
    texts[path] = "".join([places[0] * times, *places[1:]])
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return texts


def test_each_place_is_replaced(patch: Any, tmp_path: Path) -> None:
    source(patch, tmp_path)
    patch.apply(tmp_path)
    for name, replaced in patch.REPLACEMENTS.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == "".join(replaced.values())
    for name, text in patch.ADDED.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text


@pytest.mark.parametrize("times", [0, 2])
def test_another_source_is_refused_and_left_as_it_is(patch: Any, tmp_path: Path, times: int) -> None:
    texts = source(patch, tmp_path, times)
    with pytest.raises(patch.StepFailed, match=r"the engine's source has changed"):
        patch.apply(tmp_path)
    assert {path: path.read_text(encoding="utf-8") for path in texts} == texts
