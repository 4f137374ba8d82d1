"""Sizes are told in powers of ten, as disks and networks are sold: one unit in sentences, bars and tables."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = re.compile(r"\b[KMGT]iB\b")
READS = {"rbee/worker/llama/cache_size.py"}
"""What reads the words of others."""


def sentences(path: Path) -> list[str]:
    """Return the strings of a module but for docstrings, which users do not see."""
    tree = ast.parse(path.read_text("utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent
    ]


def test_no_size_is_told_in_another_unit() -> None:
    found = {
        str(path.relative_to(ROOT)): [text for text in sentences(path) if BINARY.search(text)]
        for path in (ROOT / "rbee").rglob("*.py")
    }
    assert {name for name, texts in found.items() if texts} - READS == set()
