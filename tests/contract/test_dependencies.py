"""pyproject.toml asks for exactly the packages that rbee imports; the locks hold these and what they need."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]
MODULES: Final = {
    "llama-cpp-python": "llama_cpp",
    "markdown-it-py": "markdown_it",
    "nvidia-ml-py": "pynvml",
    "prometheus-client": "prometheus_client",
    "prompt-toolkit": "prompt_toolkit",
    "quart-trio": "quart_trio",
}
"""Distribution → the module it brings, where the two names differ."""
NEEDED_BY_OTHERS: Final[dict[str, str]] = {"socksio": "httpx imports it for a SOCKS proxy"}
"""Distribution → why pyproject.toml asks for it although nothing in rbee imports it."""
LEFT_OUT: Final = {"diskcache", "numpy"}
"""What llama-cpp-python asks for and rbee leaves out: the module `llama_cpp.llama_cpp` needs neither."""
IMPORTING_CALLS: Final = {"import_module", "find_spec", "__import__"}


def requested() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the modules imported at run time, those that stand in strings too."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from imports(ast.Module(node.orelse, []))
                continue
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.Call(func=function, args=[*arguments]) if _name(function) in IMPORTING_CALLS:
                yield from (
                    argument.value
                    for argument in arguments
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                )
            case _:
                pass
        yield from imports(node)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def imported() -> dict[str, set[str]]:
    """Return each module of somebody else that rbee imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "rbee").rglob("*.py"):
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            top = name.partition(".")[0]
            if top != "rbee" and top not in sys.stdlib_module_names:
                found.setdefault(top, set()).add(str(path.relative_to(ROOT)))
    return found


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> set[str]:
    locks = (ROOT / "build" / "locks" / name for name in ("runtime.txt", "llama.txt"))
    return {name for lock in locks for name in re.findall(r"^([\w.-]+)==", lock.read_text("utf-8"), re.MULTILINE)}


def needed(requirements: Iterable[Requirement]) -> set[str]:
    """Return the distributions that `requirements` install, as the metadata of those installed here tells."""
    waiting = list(requirements)
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = normalized(requirement.name)
        for extra in ("", *requirement.extras):
            if name in LEFT_OUT or (name, extra) in seen:
                continue
            seen.add((name, extra))
            lines = map(Requirement, metadata.requires(name) or [])
            waiting += [line for line in lines if line.marker is None or line.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def test_imports_are_seen_wherever_they_stand() -> None:
    source = """
import one.part
if TYPE_CHECKING:
    import never
else:
    import two
def late():
    from three import x
    importlib.import_module("four.part"); find_spec("five")
    importlib.import_module(name)
from . import beside
"""
    assert set(imports(ast.parse(source))) == {"one.part", "two", "three", "four.part", "five"}


def test_everything_that_is_asked_for_is_imported() -> None:
    modules = {MODULES.get(item.name, item.name): item.name for item in requested()}
    used = imported()
    assert {name for module, name in modules.items() if module not in used} == set(NEEDED_BY_OTHERS)


def test_everything_that_is_imported_is_asked_for() -> None:
    modules = {MODULES.get(item.name, item.name) for item in requested()}
    assert {module: files for module, files in imported().items() if module not in modules} == {}


def test_the_names_that_differ_are_those_of_packages_that_are_asked_for() -> None:
    assert set(MODULES) <= {item.name for item in requested()}


def test_the_locks_hold_what_is_needed_and_nothing_else() -> None:
    assert locked() == needed(requested())


def test_the_tools_for_tests_hold_what_packs_rbee() -> None:
    """A .venv with the tools for tests packs it with the same versions, so it needs no second lock."""
    packs, tests = (
        set(re.findall(r"^[\w.-]+==[\w.]+", (ROOT / "build" / "locks" / name).read_text("utf-8"), re.MULTILINE))
        for name in ("zipapp.txt", "dev.txt")
    )
    assert packs <= tests
    assert len(packs) < 8, "who installs rbee from a checkout needs no more"
