"""Which role the program's name and first argument choose."""

from __future__ import annotations

import sys

import pytest

from rbee import entry


@pytest.mark.parametrize(
    ("name", "role"), [("queen-rbee", "queen"), ("rbee-hive", "hive"), ("llm-worker-rbee", "worker")]
)
def test_a_name_is_a_role(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, role: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/bin/{name}", "--help"])
    with pytest.raises(SystemExit):
        entry.main()
    assert capsys.readouterr().out.startswith(f"usage: rbee {role}")


@pytest.mark.parametrize("name", ["rbee", "rbee-keeper", "queen-rbee", "rbee-hive"])
def test_a_role_that_is_asked_for_wins_over_the_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/bin/{name}", "worker", "--help"])
    with pytest.raises(SystemExit):
        entry.main()
    assert capsys.readouterr().out.startswith("usage: rbee worker")
