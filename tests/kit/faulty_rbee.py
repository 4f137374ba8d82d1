"""Runs rbee with a fault at one of its awaits: whatever it awaits there fails, once, in the daemon that is named.

Each `await`, `async with` and `async for` in the source of rbee is a site: `SITES` knows it by its number. A test says
in a file that all daemons share which site fails next, in which role, and with what; `Faults` is the test's side of it.
"""

from __future__ import annotations

import ast
import builtins
import errno
import importlib.abc
import importlib.machinery
import mmap
import os
import sys
import zlib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
ROLES: Final = ("queen", "hive", "worker")
KINDS: Final = 5
"""Kinds of errors that a site may fail with."""
SITE, ROLE, KIND, FIRED, ROUND = range(5)
"""Words of the shared file: the site that fails next (0 for none), in which role, with what; how many have failed; the
round in which the sites that are passed are noted anew."""


def new_fault(kind: int) -> Exception:
    """Return an error that nobody expects."""
    match kind % KINDS:
        case 0:
            return RuntimeError("a fault of the test")
        case 1:
            return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        case 2:
            return ExceptionGroup("faults of the test", [KeyError("a fault of the test")])
        case 3:
            return MemoryError("a fault of the test")
        case _:
            return ValueError("a fault of the test")


def site_of(path: str, line: int, column: int, what: str) -> int:
    """Return the number of a site; `path` is relative to the root."""
    return zlib.crc32(f"{path}:{line}:{column}:{what}".encode()) or 1


class Instrumenter(ast.NodeTransformer):
    """Has a call of `__fault__` around everything that is awaited; `sites` are the numbers, with their places."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.sites: dict[int, str] = {}

    def _around(self, node: ast.expr, what: str) -> ast.expr:
        site = site_of(self.path, node.lineno, node.col_offset, what)
        self.sites[site] = f"{self.path}:{node.lineno} {what}"
        call = ast.Call(ast.Name("__fault__", ast.Load()), [ast.Constant(site), ast.Constant(what), node], keywords=[])
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        # What contains errors raises none itself.
        if not (isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "keep_running"):
            node.value = self._around(node.value, "await")
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = self._around(self._around(item.context_expr, "leave"), "enter")
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        node.iter = self._around(node.iter, "next")
        return node


class _Context:
    """An asynchronous context manager that fails when it is entered, or once it was left."""

    def __init__(self, site: int, what: str, inner: Any) -> None:
        self._site, self._what, self._inner = site, what, inner

    async def __aenter__(self) -> Any:
        if self._what == "enter":
            _fail_if_due(self._site)
        return await self._inner.__aenter__()

    async def __aexit__(self, *failure: object) -> Any:
        result = await self._inner.__aexit__(*failure)
        if self._what == "leave":
            _fail_if_due(self._site)
        return result


class _Iterator:
    """An asynchronous iterator of which a step fails."""

    def __init__(self, site: int, inner: Any) -> None:
        self._site, self._inner = site, inner.__aiter__()

    def __aiter__(self) -> _Iterator:
        return self

    async def __anext__(self) -> Any:
        _fail_if_due(self._site)
        return await self._inner.__anext__()


class _Here:
    """This process: its role, what all daemons share, and where it notes which sites it has passed."""

    role = -1
    log = -1
    round = 0
    shared: Any = (0, 0, 0, 0, 0)
    passed: Final[set[int]] = set()


def fault(site: int, what: str, inner: Any) -> Any:
    """Return what stands for `inner`, or fail in its place."""
    if what != "await":
        return _Iterator(site, inner) if what == "next" else _Context(site, what, inner)
    try:
        _fail_if_due(site)
    except Exception:
        if hasattr(inner, "close"):
            inner.close()
        raise
    return inner


def _fail_if_due(site: int) -> None:
    shared = _Here.shared
    if shared[ROUND] != _Here.round:
        _Here.round = shared[ROUND]
        _Here.passed.clear()
    if site not in _Here.passed:
        _Here.passed.add(site)
        os.write(_Here.log, f"{_Here.round} {_Here.role} {site}\n".encode())
    if shared[SITE] == site and shared[ROLE] == _Here.role:
        shared[SITE] = 0
        shared[FIRED] += 1
        raise new_fault(shared[KIND])


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, **_: Any) -> Any:  # type: ignore[override]
        tree = Instrumenter(str(Path(path).relative_to(ROOT))).visit(ast.parse(data))
        return compile(tree, path, "exec")

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if not name.startswith("rbee") or name.startswith("rbee.concurrency"):
            return None  # the latter are what keeps errors where they belong
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            spec.loader = _Loader(name, spec.origin)
        return spec


class Faults:
    """The test's side: which sites there are, which were passed, and which one fails next."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "shared").write_bytes(bytes(20))
        self._shared = _map(folder)
        self.sites: dict[int, str] = {}
        for path in sorted((ROOT / "rbee").rglob("*.py")):
            instrumenter = Instrumenter(str(path.relative_to(ROOT)))
            instrumenter.visit(ast.parse(path.read_bytes()))
            self.sites |= instrumenter.sites

    def next_round(self) -> None:
        """Have it noted anew which sites are passed."""
        self._shared[ROUND] += 1

    def passed(self) -> set[tuple[int, int]]:
        """Return the sites that were passed in this round, each with the role that passed it."""
        lines = [line for file in self.folder.glob("passed-*") for line in file.read_text().splitlines()]
        noted = [tuple(map(int, line.split())) for line in lines]
        return {(role, site) for number, role, site in noted if number == self._shared[ROUND]}

    def arm(self, role: int, site: int, kind: int) -> None:
        """Have this site fail in this role when it is passed next."""
        self._shared[ROLE], self._shared[KIND] = role, kind
        self._shared[SITE] = site

    def disarm(self) -> None:
        """Have none fail."""
        self._shared[SITE] = 0

    @property
    def fired(self) -> int:
        """How many sites have failed."""
        return int(self._shared[FIRED])


def _map(folder: Path) -> Any:
    with (folder / "shared").open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 20)).cast("I")


def main() -> int:
    """Run the role that the first argument names."""
    sys.path[0] = str(ROOT)
    if sys.argv[1] in ROLES:
        folder = Path(os.environ["RBEE_TEST_FAULTS"])
        _Here.shared, _Here.role = _map(folder), ROLES.index(sys.argv[1])
        _Here.log = os.open(folder / f"passed-{os.getpid()}", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        builtins.__fault__ = fault  # type: ignore[attr-defined]
        sys.meta_path.insert(0, _Finder())
    from rbee.entry import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
