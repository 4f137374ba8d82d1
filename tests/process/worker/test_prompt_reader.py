"""Prompts of which a chat template makes something else are read beside the event loop."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import trio

from rbee.worker.chat.frame import chat_of
from rbee.worker.serving.prompt_reader import PromptReader
from tests.conftest import ROOT

if TYPE_CHECKING:
    import pytest

SHOUTING = "{{ messages[0].content | upper }}!"


class Letters:
    """A vocabulary of letters."""

    chat_template = SHOUTING
    begin_text = end_text = ""

    def tokenize(self, text: str, *, begin: bool = True, control: bool = False) -> list[int]:
        assert threading.current_thread() is not threading.main_thread(), "a long prompt takes a second"
        assert isinstance(begin, bool)
        return [ord(letter) for letter in text if not (control and letter == "<")]


async def test_a_template_that_changes_prompts_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])
    letters: Any = Letters()
    reader = PromptReader(SimpleNamespace(vocabulary=letters, length=100, trained_length=100), await chat_of(letters))  # type: ignore[arg-type]
    found: dict[str, str] = {}

    async def read(prompt: str) -> None:
        found[prompt] = "".join(map(chr, await reader.read(prompt, raw=False)))

    async with trio.open_nursery() as nursery:
        for prompt in ("bee", "a <b>", "ant", "wasp", "moth", "fly"):
            nursery.start_soon(read, prompt)
    assert found == {
        "bee": "BEE!", "a <b>": "A B>!", "ant": "ANT!", "wasp": "WASP!", "moth": "MOTH!", "fly": "FLY!",
    }  # fmt: skip
