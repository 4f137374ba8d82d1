"""Which role the program's name and first argument choose."""

from __future__ import annotations

import gc
import sys

import pytest

from rbee import __version__, entry


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["help"], "usage: rbee <command>"),
        (["help", "infer"], "usage: rbee infer"),
        (["help", "setup", "add-node"], "usage: rbee setup add-node"),
    ],
)
def test_help_is_a_command_too(capfd: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert entry.main(words) == 0
    assert capfd.readouterr().out.startswith(said)


def test_help_for_a_daemon_is_the_daemons_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        entry.main(["help", "hive"])
    assert capsys.readouterr().out.startswith("usage: rbee hive")


def test_garbage_is_collected_of_what_comes_after_the_modules_alone() -> None:
    gc.unfreeze()
    assert entry.main(["help", "infer"]) == 0
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("word", ["--version", "-V", "version"])
def test_the_version_is_told(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert entry.main([word]) == 0
    assert capsys.readouterr().out == f"rbee {__version__}\n"


@pytest.mark.parametrize("role", ["queen", "hive", "worker"])
def test_a_daemon_tells_wrong_usage_as_every_command_does(capsys: pytest.CaptureFixture[str], role: str) -> None:
    with pytest.raises(SystemExit) as end:
        entry.main([role, "--prot", "1"])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("rbee: ")
    assert "\nhint: " in err
