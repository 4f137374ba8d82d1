"""What runs from a checkout names the Pythons that it needs, in one line, to a Python that is too old."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = "rbee: CPython 3.11 to 3.14 is needed"


@pytest.fixture(autouse=True)
def old_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    monkeypatch.setitem(sys.modules, "tomllib", None)  # its import fails, as there


def test_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert runpy.run_path(str(ROOT / "rbee.py"))["main"]() == 1
    assert capsys.readouterr().err == f"{NEEDED}; this is Python 3.10\n"


@pytest.mark.parametrize(("program", "verb"), [("zipapp.py", "build"), ("test.py", "test")])
def test_to_build_and_test(program: str, verb: str) -> None:
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "build" / program))
    assert end.value.code == f"{NEEDED} to {verb}; this is Python 3.10"
