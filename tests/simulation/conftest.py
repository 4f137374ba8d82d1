"""Options of the simulation: how many seeds, and which."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, help="simulations to run")
    parser.addoption("--first-seed", type=int, default=0, help="the seed of the first one")
