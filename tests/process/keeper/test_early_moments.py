"""Signals and addresses that come before a command has anything running."""

from __future__ import annotations

import signal
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import trio

from rbee.keeper.output.result import Interrupted
from rbee.keeper.session import interrupt
from tests.kit.keeper_driver import ROOT, Keeper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path


@pytest.fixture
def obeys_ctrl_c() -> Iterator[None]:
    """Python's own handler: a shell starts what runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("obeys_ctrl_c")
def test_ctrl_c_before_trio_listens_to_signals_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    listen = trio.open_signal_receiver

    @trio.lowlevel.enable_ki_protection  # as trio's own code is, so it is put off to the next await of the command
    def interrupt_now() -> None:
        signal.raise_signal(signal.SIGINT)

    def too_late(*numbers: Any) -> AbstractContextManager[Any]:
        interrupt_now()
        return listen(*numbers)

    async def command(_force: trio.Event) -> None:
        await trio.sleep(5)

    monkeypatch.setattr(trio, "open_signal_receiver", too_late)
    with pytest.raises(Interrupted) as caught:
        interrupt.run(command)
    assert caught.value.exit_code == 130


@pytest.mark.parametrize("error", [ValueError(), ExceptionGroup("of a nursery", [ValueError()])])
def test_what_the_clean_up_raises_after_a_signal_is_still_an_interruption(error: Exception) -> None:
    async def command(_force: trio.Event) -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            await trio.sleep(5)
        finally:
            raise error

    with pytest.raises(Interrupted) as caught:
        interrupt.run(command)
    assert caught.value.exit_code == 143


def test_a_host_that_does_not_exist_is_not_said_to_be_taken(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, port=9)
    keeper.env["RBEE_QUEEN_HOST"] = "nowhere.invalid"
    code, out, err = keeper.run("status")
    assert (code, out) == (0, "")
    assert err.startswith("No queen is running.")
    assert err.count("\n") == 1


def test_ctrl_c_while_the_zipapp_unpacks_is_confirmed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt_now(_: str) -> bool:
        raise KeyboardInterrupt

    text = (ROOT / "build/launcher/__main__.py").read_text().replace("@ARCHIVE_SIZE@", "1").replace("@GLIBC@", "2.34")
    launcher = ModuleType("launcher")
    exec(text, launcher.__dict__)
    monkeypatch.setattr(launcher, "is_whole", interrupt_now)
    assert launcher.main() == 130
    assert capsys.readouterr().err.endswith("Cancelled.\n")
