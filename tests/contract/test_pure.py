"""Modules that decide say in their docstring that they are pure; the import contract holds exactly those to it."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "(PURE)"


def contract() -> set[str]:
    """Return the modules that the contract lists."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (pure,) = [contract for contract in contracts if contract["id"] == "pure"]
    return set(pure["source_modules"])


def modules() -> dict[str, str]:
    """Return the docstring of each module."""
    found = {}
    for path in (ROOT / "rbee").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name] = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return found


def test_each_module_that_says_it_is_pure_is_held_to_it() -> None:
    assert {name for name, docstring in modules().items() if MARK in docstring} - contract() == set()


def test_each_module_that_is_held_to_it_exists_and_says_so() -> None:
    known = modules()
    assert {name for name in contract() if MARK not in known.get(name, "")} == set()


def test_there_is_one_way_to_say_so() -> None:
    assert {
        name for name, text in modules().items() if "pure" in text.lower().replace(MARK.lower(), "").split()
    } == set()
