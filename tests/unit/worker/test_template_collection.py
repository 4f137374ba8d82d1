"""The chat templates of real models, as they come with the engine's source: each takes a whole history with tools."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import pytest

from rbee.wire.chat.template import ChatText
from rbee.worker.output.families import family_of
from tests.kit.histories import CALL, CLOCK, SECOND, WEATHER, Loaded, assistant, collection, result, system, talk, user
from tests.kit.joined_answers import meant, parse

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES: Final = collection()
NAMES: Final = [path.stem for path in TEMPLATES]
HISTORY: Final = talk(
    system("SystemText"),
    user("UserText"),
    assistant("AnswerText", CALL, SECOND, reasoning="ThoughtText"),
    result("FirstResult", "call_1"),
    result("SecondResult", "call_2"),
    user("AgainText"),
    tools=[WEATHER, CLOCK],
)
WORDS: Final = (
    "SystemText", "UserText", "AnswerText", "get_weather", "Berlin", "get_time", "FirstResult", "SecondResult",
    "AgainText", "Says the weather",
)  # fmt: skip
THINKING: Final = {  # whose templates show what was thought before the last call
    "Bielik-11B-v3.0-Instruct", "ByteDance-Seed-OSS", "Cohere2MoE", "GLM-4.6", "Kimi-K2-Thinking", "MiniMax-M2",
    "Qwen-Qwen3-0.6B", "openai-gpt-oss-120b", "StepFun3.5-Flash", "Qwen3.5-4B", "LFM2.5-8B-A1B",
}  # fmt: skip


def test_the_collection_is_there() -> None:
    assert len(TEMPLATES) > 60, "build/test.py fetches it, and says where it is in RBEE_TEST_TEMPLATES"


def source(path: Path) -> str:
    return path.read_bytes().decode()


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_a_history_with_tools_is_shown_whole(path: Path) -> None:
    *refused, last = Loaded(source(path)).attempts(HISTORY)
    assert isinstance(last, ChatText), [*refused, last]
    assert [word for word in WORDS if word not in last.text] == []
    places = [last.text.rindex(word) for word in ("UserText", "FirstResult", "SecondResult", "AgainText")]
    assert places == sorted(places), "in this order"
    assert not re.search(r"\{'city': 'Berlin'", last.text), "as Python writes an object"
    assert '\\"city\\"' not in last.text, "JSON in JSON"


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_what_was_thought_is_shown_in_a_tool_loop(path: Path) -> None:
    loop = talk(*HISTORY.messages[:-1], tools=HISTORY.tools, effort="high")
    loaded = Loaded(source(path))
    text = loaded.text(loop)
    assert [word for word in WORDS if word not in text and word != "AgainText"] == []
    if path.stem in THINKING:
        assert "ThoughtText" in text
    if "ThoughtText" not in text:
        assert loaded.habits.reasoning is None or not loaded.habits.content_and_calls


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_calls_are_read_as_the_template_writes_them(path: Path) -> None:
    family, loaded = family_of(source(path)), Loaded(source(path))
    asked = [user("UserText")]
    both, single = [CALL, SECOND], [CALL]
    for calls in (single if family.syntax.tools.is_single else both), single:
        written = loaded.text(talk(*asked, assistant("", *calls), user("AgainText"), tools=[WEATHER, CLOCK]))
        answer = written[written.rindex("UserText") + len("UserText") : written.rindex("AgainText")]
        found = parse(family, [answer], [WEATHER, CLOCK])
        read = [part for part in meant(found) if part[0] not in ("text", "reasoning")]
        assert read == [(call.name, json.loads(call.arguments)) for call in calls], (family.name, answer)


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_odd_histories_are_taken(path: Path) -> None:
    loaded = Loaded(source(path))
    odd = [
        talk(user("UserText")),
        talk(user("UserText"), user("AgainText")),
        talk(user("UserText"), assistant("AnswerText"), system("SystemText"), user("AgainText")),
        talk(assistant("AnswerText"), user("UserText")),
        talk(result("FirstResult", "call_7"), user("UserText")),
        talk(user("UserText"), assistant("AnswerText"), assistant("SecondResult"), user("AgainText")),
        talk(user("UserText"), assistant("", CALL), user("AgainText"), tools=[WEATHER]),
        talk(user("UserText"), assistant("AnswerText")),
    ]
    for conversation in odd:
        text = loaded.text(conversation)
        said = [message.text() for message in conversation.messages if message.text()]
        assert [word for word in said if word not in text] == [], conversation


@pytest.mark.parametrize("path", TEMPLATES, ids=NAMES)
def test_an_answer_is_continued_where_it_ends(path: Path) -> None:
    """The last thing in the prompt is what is to be continued: see `chat.history`, which cuts behind it."""
    text = Loaded(source(path)).text(talk(user("UserText"), assistant("AnswerText endofit"), continues=True))
    assert text.count("endofit") == 1
    assert text.index("UserText") < text.index("AnswerText endofit")
