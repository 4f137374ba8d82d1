"""docs/architecture.md lists every folder of the program with its own words, and names only modules that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(rbee[\w/]*)/` \| (.*) \|$", re.MULTILINE)
MODULE = re.compile(r"`((?:\w+/)*\w+\.py)`")


def folders() -> dict[str, str]:
    """Return each package of rbee with its docstring."""
    packages = sorted((ROOT / "rbee").rglob("__init__.py"))
    return {
        str(path.parent.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        for path in packages
    }


def test_the_folders_listed_are_those_that_exist_with_their_docstrings() -> None:
    assert dict(ROW.findall(PAGE)) == folders()


def test_no_folder_is_listed_twice_and_they_are_in_order() -> None:
    listed = [folder for folder, _ in ROW.findall(PAGE)]
    assert listed == sorted(folders())


def test_every_module_that_is_named_exists() -> None:
    named = set(MODULE.findall(PAGE))
    assert len(named) > 30
    assert {name for name in named if not any((base / name).is_file() for base in (ROOT, ROOT / "rbee"))} == set()


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/architecture.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
