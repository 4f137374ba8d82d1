"""Prompts of which a chat template makes something else are read beside the event loop."""

from __future__ import annotations

import re
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from rbee.errors import InvalidRequestError
from rbee.narrower_errors import PromptTooLongError
from rbee.wire.worker import InferenceRequest
from rbee.worker.chat.chat import open_chat
from rbee.worker.serving.prompt_reader import PromptReader
from tests.conftest import ROOT
from tests.kit.histories import talk, user

AGENTS_LOOK_FOR = (
    r"prompt is too long", r"maximum context length is \d+ tokens", r"exceeds the available context size",
    r"exceeds the context window", r"reduce the length of the messages",
    r"prompt is too long: \d+[\w ]* tokens > \d+ maximum",
)  # fmt: skip
SHOUTING = "{{ messages[0].content | upper }}!"


class Letters:
    """A vocabulary of letters."""

    chat_template = SHOUTING
    tools_template = None
    tokens = 256
    begin_text = end_text = ""
    longest = 0
    """Of the texts that were read."""

    def control_tokens(self) -> dict[str, int]:
        return {"<": ord("<")}

    def end_tokens(self) -> list[int]:
        return []

    def infill_tokens(self) -> tuple[int, int, int] | None:
        return (1, 2, 3)

    def tokenize(self, text: str, *, begin: bool = True, control: bool = False) -> list[int]:
        assert threading.current_thread() is not threading.main_thread(), "a long prompt takes a second"
        assert isinstance(begin, bool)
        self.longest = max(self.longest, len(text))
        return [ord(letter) for letter in text if not (control and letter == "<")]


async def test_a_template_that_changes_prompts_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])
    letters: Any = Letters()
    found: dict[str, str] = {}

    async with open_chat(letters) as chat:
        reader = PromptReader(SimpleNamespace(vocabulary=letters, length=100, trained_length=100), chat)  # type: ignore[arg-type]

        async def read(prompt: str) -> None:
            found[prompt] = "".join(map(chr, await reader.read(prompt, raw=False)))

        async with trio.open_nursery() as nursery:
            for prompt in ("bee", "a <b>", "ant", "wasp", "moth", "fly"):
                nursery.start_soon(read, prompt)
    assert found == {
        "bee": "BEE!", "a <b>": "A <B>!", "ant": "ANT!", "wasp": "WASP!", "moth": "MOTH!", "fly": "FLY!",
    }  # fmt: skip


async def test_a_conversation_is_read_and_one_that_is_too_long_is_refused_in_words_that_agents_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])
    letters: Any = Letters()
    async with open_chat(letters) as chat:
        reader = PromptReader(SimpleNamespace(vocabulary=letters, length=100, trained_length=200), chat)  # type: ignore[arg-type]
        prompt = await reader.read_conversation(talk(user("a <b>")))
        assert "".join(map(chr, prompt.tokens)) == "A <B>!"
        assert prompt.history is not None
        assert (prompt.history.tail, prompt.history.template) == ("!", SHOUTING)
        for size, counted in ((100, "101"), (500, "501"), (5000, "1600 or more")):
            with pytest.raises(InvalidRequestError) as refused:
                await reader.read_conversation(talk(user("a" * size)))
            error = refused.value
            assert (error.details["kind"], error.details["context"]) == ("context_length_exceeded", 100)
            assert f"prompt is too long: {counted} tokens > 100 maximum" in error.message
            assert error.details["tokens"] == int(counted.split()[0])
            for words in AGENTS_LOOK_FOR:
                assert re.search(words, error.message, re.IGNORECASE), words
        with pytest.raises(InvalidRequestError, match="prompt is too long: 100 tokens"):
            reader.check_tokens([1] * 100)
        reader.check_tokens([1] * 99)


async def test_what_stands_between_two_texts_is_asked_for_and_neither_is_read_for_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])
    letters: Any = Letters()
    async with open_chat(letters) as chat:
        reader = PromptReader(SimpleNamespace(vocabulary=letters, length=100, trained_length=100), chat)  # type: ignore[arg-type]
        read = await reader.read_request(InferenceRequest(prompt="if a<", suffix=":"))
        assert read.tokens == [1, *b"if a<", 2, *b":", 3]
        assert (await reader.read_request(InferenceRequest(prompt="a", suffix=""))).tokens == [1, *b"a", 2, 3]
        with pytest.raises(PromptTooLongError, match="prompt is too long: 103 tokens"):
            await reader.read_request(InferenceRequest(prompt="a" * 50, suffix="b" * 50))
        for texts in (("a" * 1_000_000, "b"), ("a", "b" * 1_000_000)):
            with pytest.raises(PromptTooLongError, match="1600 or more"):
                await reader.read_request(InferenceRequest(prompt=texts[0], suffix=texts[1]))
        assert letters.longest == 1600
