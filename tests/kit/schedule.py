"""In which order tests run, and which of them stay together, when several processes share them (pytest-xdist)."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import pytest
from _pytest.nodeid import NodeId

if TYPE_CHECKING:
    from collections.abc import Iterable

RANKS: Final = {"process": 0, "clients": 0, "features": 0, "simulation": 1, "net": 2, "contract": 3, "unit": 3}
"""Tests that take seconds come before those that take none, so that all processes end together."""


def arrange(items: list[pytest.Item]) -> None:
    """Give tests that share what their module makes to one process, and begin with what takes long.

    Tests of daemons mostly wait and scenarios mostly compute: so those two take turns.
    """
    for item in items:
        if _shares(item):
            _put_into_group(item)
    folders: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        folders[_folder(item)].append(item)
    keys: dict[pytest.Item, tuple[float, ...]] = {}
    for name, found in folders.items():
        for at, item in enumerate(_largest_first(found)):
            keys[item] = (RANKS.get(name, 0), at / len(found))
    items.sort(key=keys.__getitem__)


def _put_into_group(item: pytest.Item) -> None:
    group = item.nodeid.partition("::")[0].removeprefix("tests/")
    item.add_marker(pytest.mark.xdist_group(group))
    # xdist 3.8 writes the group into an attribute that pytest 9.2 does not read: all tests would run apart.
    if not item.nodeid.endswith(f"@{group}"):
        item._id = NodeId.parse(f"{item.nodeid}@{group}")  # type: ignore[attr-defined]


def _shares(item: pytest.Item) -> bool:
    """Tell whether a test uses a fixture that is made once for its module."""
    fixtures = item._fixtureinfo.name2fixturedefs  # type: ignore[attr-defined]
    return any(found[-1].scope == "module" for found in fixtures.values())


def _folder(item: pytest.Item) -> str:
    """Return the kind of test: `tests/KIND/…`, or `features`."""
    parts = item.path.relative_to(item.config.rootpath).parts
    return parts[1] if parts[0] == "tests" else parts[0]


def _largest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return groups, the largest first, before single tests, which can fill what is left of any process's time."""
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    singles = []
    for item in items:
        if (mark := item.get_closest_marker("xdist_group")) is None:
            singles.append(item)
        else:
            groups[str(mark.args[0])].append(item)
    return [item for group in sorted(groups.values(), key=len, reverse=True) for item in group] + singles
