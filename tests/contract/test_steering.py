"""What control flow looks at is a class or a typed field: nothing is decided by an error's details or words."""

from __future__ import annotations

import ast
from pathlib import Path

import rbee

ROOT = Path(rbee.__file__).parent
WORDS = {"details", "message"}
DECIDING_CALLS = {"any", "all", "startswith", "endswith"}
ALLOWED = {
    # Words for people: the message gets the node's name in front where the queen knows it.
    "keeper/inference/explain_failure.py: (node := error.details.get('node')) is not None",
    "keeper/inference/explain_failure.py: (node := error.details.get('node')) is not None"
    " and (not isinstance(error, NodeNotFoundError))",
}


def _deciding(tree: ast.AST) -> list[ast.expr]:
    """Return what decides: conditions of statements, expressions and comprehensions, comparisons, tests of strings."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test) | ast.Assert(test=test):
                found.append(test)
            case ast.comprehension(ifs=tests):
                found += tests
            case ast.Match(subject=subject):
                found.append(subject)
            case ast.Compare():
                found.append(node)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in DECIDING_CALLS:
                found.append(node)
    return found


def _steering(source: str) -> set[str]:
    return {
        ast.unparse(expression)
        for expression in _deciding(ast.parse(source))
        if any(isinstance(node, ast.Attribute) and node.attr in WORDS for node in ast.walk(expression))
    }


NAMING = (ROOT / "errors.py", ROOT / "narrower_errors.py", ROOT / "wire" / "error_body.py")
"""Modules that give such details a name."""


def test_nothing_is_decided_by_an_errors_details_or_words() -> None:
    found = {
        f"{file.relative_to(ROOT)}: {condition}"
        for file in ROOT.rglob("*.py")
        if file not in NAMING
        for condition in _steering(file.read_text())
    }
    assert found == ALLOWED


def test_what_would_decide_is_found() -> None:
    sources = (
        'ok = "worker_id" in exc.details',
        'if exc.details.get("reason") == "host_key": raise',
        'ok = any(attempt.endswith(TAKEN) for attempt in exc.details.get("attempts", ()))',
        'if exc.message.endswith("timeout"): raise',
        'found = 1 if exc.details["tokens"] else 2',
        "match exc.message:\n    case _: pass",
    )
    assert [source for source in sources if not _steering(source)] == []
    assert not _steering('log.info("%s", exc.message)\nerror = Failed(exc.message, **exc.details)')
