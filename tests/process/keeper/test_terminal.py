"""What a user at a terminal sees: stdout and stderr are the same screen."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.kit.keeper_driver import PEER, Keeper

if TYPE_CHECKING:
    from pathlib import Path


class Screen:
    """A terminal in which a command runs."""

    def __init__(self, keeper: Keeper, *arguments: str, **plan: object) -> None:
        import json

        self._master, slave = pty.openpty()
        env = keeper.env | {"PEER": json.dumps(plan), "TERM": keeper.env.get("TERM", "xterm"), "LANG": "C.UTF-8"}
        # A session of its own with the terminal as its controlling one, so that Ctrl+C becomes SIGINT there.
        program = (
            "import os, sys, fcntl, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, sys.executable, PEER, *arguments],
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self.text = ""

    def read_until(self, wanted: str) -> None:
        """Read until something is on the screen, or nothing can come any more."""
        end = time.monotonic() + 30
        while wanted not in self.text:
            readable, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            assert readable, f"this did not come: {wanted!r}"
            try:
                self.text += os.read(self._master, 65536).decode("utf-8", "replace")
            except OSError:
                return  # the last process at this terminal has ended

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def finish(self) -> tuple[int, str]:
        """Return exit code and all that was on the screen, with plain newlines."""
        self.read_until("\0never")
        code = self._process.wait(30)
        with contextlib.suppress(OSError):
            os.close(self._master)
        return code, self.text.replace("\r\n", "\n")


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    keeper = Keeper(tmp_path)
    keeper.env["TERM"] = "xterm-256color"
    keeper.env.pop("NO_COLOR", None)
    return keeper


def test_narration_waits_until_the_text_has_ended(keeper: Keeper) -> None:
    code, seen = Screen(keeper, "infer", "-v", "--prompt", "Once").finish()
    assert code == 0
    assert seen.endswith(
        "Once upon a time, the bée\nsang.\n\x1b[2m[llm-worker-rbee] ✨ Generated 6 tokens in 12 ms\x1b[0m\n"
        "\x1b[2mGenerated 6 tokens with builtin:bee-stories on local\x1b[0m\n"
    )
    assert "[queen-rbee] 👑 Choosing a worker on local" in seen


def test_narration_is_one_line_that_is_replaced_and_goes_away(keeper: Keeper) -> None:
    keeper.env["NO_COLOR"] = "1"
    code, seen = Screen(keeper, "infer", "--prompt", "Once").finish()
    assert code == 0
    lines = seen.split("\n")
    assert lines[1:] == ["sang.", "Generated 6 tokens with builtin:bee-stories on local", ""]
    shown = [part for part in lines[0].split("\r") if part.strip()]
    assert shown[0] == "No queen is running; starting one for this command"
    assert shown[1].startswith("Listening on ")
    assert shown[2] == "Choosing a worker on local"
    assert shown[-1] == "Once upon a time, the bée"
    assert f"\r{' ' * len(shown[2])}  \r" in lines[0]


def test_an_error_stands_in_place_of_the_narration(keeper: Keeper) -> None:
    keeper.env["NO_COLOR"] = "1"
    failure = ["MODEL_NOT_FOUND", "there is no such model"]
    code, seen = Screen(keeper, "infer", "--prompt", "Once", place=failure).finish()
    assert code == 1
    assert seen.split("\n")[0].endswith(" \rrbee: there is no such model")


def test_ctrl_c_stands_in_place_of_the_narration(keeper: Keeper) -> None:
    keeper.env["NO_COLOR"] = "1"
    screen = Screen(keeper, "infer", "--prompt", "Once", place="hang")
    screen.read_until("Choosing a worker on local")
    screen.press_ctrl_c()
    code, seen = screen.finish()
    assert code == 130
    assert seen.endswith(" \rCancelled.\n")
    assert seen.count("\n") == 1


def test_no_colour_is_obeyed(keeper: Keeper) -> None:
    keeper.env["NO_COLOR"] = "1"
    _, seen = Screen(keeper, "infer", "--prompt", "Once").finish()
    assert "\x1b" not in seen


def test_a_dumb_terminal_gets_plain_lines(keeper: Keeper) -> None:
    keeper.env["TERM"] = "dumb"
    code, seen = Screen(keeper, "infer", "--prompt", "Once", loading=3, layers=8, layer_s=0.15).finish()
    assert code == 0
    assert "\x1b" not in seen
    assert "\r" not in seen
    assert seen.startswith("Loaded the model: ")
    _, seen = Screen(keeper, "infer", "-v", "--prompt", "Once", loading=3, layers=8, layer_s=0.15).finish()
    assert "\x1b" not in seen
    assert "[queen-rbee] Choosing a worker on local\n" in seen


def test_a_slow_load_has_a_bar_that_goes_away(keeper: Keeper) -> None:
    screen = Screen(keeper, "infer", "--prompt", "Once", loading=3, layers=8, layer_s=0.15)
    code, seen = screen.finish()
    assert code == 0
    assert "Loading model" in seen
    assert "/22 layers" in seen
    assert " MB" in seen
    assert seen.rindex("layers") < seen.index("Once upon")


def test_a_line_written_while_a_bar_is_shown_looks_like_every_line(keeper: Keeper) -> None:
    keeper.env["NO_COLOR"] = "1"
    code, seen = Screen(keeper, "infer", "-v", "--prompt", "Once", pieces=9).finish()
    assert code == 0
    assert "Copying" in seen
    assert "[queen-rbee] 👑 Choosing a worker on local\n" in seen
    assert "[queen-rbee] 👑 Copied\n" in seen


def test_ctrl_c_in_the_text_says_cancelled_on_a_fresh_line(keeper: Keeper) -> None:
    screen = Screen(keeper, "infer", "--prompt", "Once", hang_after=2)
    screen.read_until("Once upon")
    screen.press_ctrl_c()
    code, seen = screen.finish()
    assert code == 130
    assert seen.endswith("Once upon^C\nCancelled.\n")
    assert keeper.running() == []


def test_ctrl_c_while_loading_says_cancelled_on_a_fresh_line(keeper: Keeper) -> None:
    screen = Screen(keeper, "infer", "--prompt", "Once", loading=99, layers=3, stuck=True)
    screen.read_until("3/22")
    screen.press_ctrl_c()
    code, seen = screen.finish()
    assert code == 130
    assert seen.endswith("\nCancelled.\n")
    assert keeper.running() == []


def test_generated_text_cannot_control_the_terminal(keeper: Keeper) -> None:
    tokens = ["a\x1b", "]0;title\x07", "\x9b2J", "b\r\n", "c"]
    _, seen = Screen(keeper, "infer", "--prompt", "Once", "-q", tokens=tokens).finish()
    assert seen == "a\ufffd]0;title\ufffd\ufffd2Jb\nc\n"
    assert keeper.run("infer", "--prompt", "Once", tokens=tokens).out == "".join(tokens) + "\n"


def test_a_broken_stream_is_reported_below_the_text(keeper: Keeper) -> None:
    code, seen = Screen(keeper, "infer", "--prompt", "Once", cut_after=2).finish()
    assert code == 1
    assert "Once upon\nrbee: the stream closed unexpectedly" in seen


def test_no_prompt_at_a_terminal_is_wrong_usage(keeper: Keeper) -> None:
    code, seen = Screen(keeper, "infer").finish()
    assert code == 2
    assert (
        seen == 'rbee: there is no prompt\nhint: give it as --prompt "…" (rbee run: after the model), or pipe it in\n'
    )
