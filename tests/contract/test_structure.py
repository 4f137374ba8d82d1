"""The shape of the tree: folders and modules of a size that one reads, and no import circles."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "rbee").rglob("*.py"))
MOST_MODULES = 20
MOST_LINES = 400


def test_no_folder_is_too_wide() -> None:
    folders = [path.parent for path in MODULES if path.name != "__init__.py"]
    assert {str(folder) for folder in folders if folders.count(folder) > MOST_MODULES} == set()


def test_no_module_is_too_long() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {str(path): length for path, length in lengths.items() if length > MOST_LINES} == {}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name == "__init__.py"], ids=lambda path: path.parent.name
)
def test_a_package_holds_no_code(path: Path) -> None:
    docstring, *rest = ast.parse(path.read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr)
    # The package's own names its version, which the start of the program may read without importing anything else.
    names = [
        name.id for node in rest if isinstance(node, ast.Assign) for name in node.targets if isinstance(name, ast.Name)
    ]
    assert names == (["__version__"] if path.parent == ROOT / "rbee" else [])
    assert len(rest) == len(names)


def test_no_two_classes_have_one_name() -> None:
    """Private ones may: they are read beside each other nowhere."""
    found = [
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert {name for name in found if found.count(name) > 1} == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports under TYPE_CHECKING count: they do not fail, but a reader goes round in the circle."""
    graph = grimp.build_graph("rbee", cache_dir=None)
    graph.remove_import(importer="rbee", imported="rbee.entry")  # rbee.py, which is taken for the package's own module
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as exc:
        pytest.fail(" -> ".join(exc.args[1]))
