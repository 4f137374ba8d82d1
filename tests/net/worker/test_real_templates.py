"""Tiny models with the chat templates of families that people use: a worker makes of each what its clients ask for."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from rbee.adapters.http import sse_client
from rbee.wire.chat.answer import AnswerEnded, AnswerEvent, ChoiceEnded, TextDelta, ToolCallBegan, ToolCallDelta
from rbee.wire.chat.conversation import JsonSchema, Tool, ToolCall, ToolChoice
from rbee.wire.worker import InferenceRequest
from tests.conftest import ROOT
from tests.kit.histories import assistant, collection, result, system, talk, user
from tests.kit.models import make
from tests.kit.worker_serving import Serving, serving

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from rbee.wire.chat.conversation import Conversation

TEMPLATES: Final = {path.stem: path for path in collection()}
FAMILIES: Final = {
    "Llama 3": "meta-llama-Llama-3.1-8B-Instruct",
    "Qwen 3": "Qwen-Qwen3-0.6B",
    "gpt-oss": "openai-gpt-oss-120b",
    "Qwen 2.5": "Qwen-Qwen2.5-7B-Instruct",
    "Llama 3.2": "meta-llama-Llama-3.2-3B-Instruct",
    "Mistral": "mistralai-Mistral-Nemo-Instruct-2407",
    "Mistral v11": "unsloth-mistral-Devstral-Small-2507",
    "DeepSeek R1": "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "DeepSeek V3.1": "deepseek-ai-DeepSeek-V3.1",
    "Gemma 2": "google-gemma-2-2b-it",
    "Gemma 4": "google-gemma-4-31B-it",
    "Granite": "ibm-granite-granite-3.3-2B-Instruct",
    "Phi": "microsoft-Phi-3.5-mini-instruct",
    "GLM": "GLM-4.6",
    "Kimi": "moonshotai-Kimi-K2",
}
FEW: Final = 3
"""Families that every run tries; --full tries all."""
CONTROL: Final = re.compile(r"<[|｜][^<>{}\s]{1,40}>|<[a-z_]{1,20}\|>|\[/?[A-Z_]{3,20}\]|</?think>|</?tool_call>")
"""What looks like a control token in a template."""
ARGUMENTS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: Final = [Tool(name="weather", description="How warm it is", parameters=ARGUMENTS), Tool(name="now")]


async def answer(worker: Serving, asked: Conversation, **fields: Any) -> list[AnswerEvent]:
    request = InferenceRequest(conversation=asked, **({"max_tokens": 3000, "temperature": 2, "seed": 5} | fields))
    async with sse_client.events(worker.client, "POST", "/v1/inference", body=request) as stream:
        return [sse_client.decode_event(event.data, AnswerEvent) async for event in stream if event.name == "message"]


def calls_of(events: list[AnswerEvent]) -> list[tuple[str, Any]]:
    """Return the calls, each with its arguments."""
    found = []
    for began in [event for event in events if isinstance(event, ToolCallBegan)]:
        pieces = [event for event in events if isinstance(event, ToolCallDelta) and event.index == began.index]
        found.append((began.name, json.loads("".join(piece.arguments for piece in pieces))))
    return found


def began_in(events: list[AnswerEvent]) -> ToolCallBegan:
    return next(event for event in events if isinstance(event, ToolCallBegan))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("family", list(FAMILIES)[: None if metafunc.config.getoption("--full") else FEW])


async def test_a_family(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TEMPLATES, "build/test.py fetches them, and says where they are in RBEE_TEST_TEMPLATES"
    source = TEMPLATES[FAMILIES[family]].read_text("utf-8")
    controls = sorted(set(CONTROL.findall(source)))
    path = make(
        tmp_path / "m.gguf",
        width=64,
        layers=1,
        context=16384,
        random=True,
        chat_template=source,
        controls=controls,
    )
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])  # the program that renders templates
    history = [system("Be brief."), user("How warm is it?")]
    async with serving(path, slots=1) as worker:
        asked = talk(*history, tools=TOOLS, tool_choice=ToolChoice(mode="required"), parallel_tool_calls=False)
        found = await answer(worker, asked)
        ((name, arguments),) = calls_of(found)
        assert name == "now" or (arguments["city"] in ("Oslo", "Rome") and arguments["days"] in (1, 2))
        assert [event.reason for event in found if isinstance(event, ChoiceEnded)] == ["tool_calls"]

        call = ToolCall(id=began_in(found).id, name=name, arguments=json.dumps(arguments))
        history += [assistant("", call), result("12 degrees", call.id), user("And in JSON?")]
        found = await answer(worker, talk(*history, tools=TOOLS, format=JsonSchema(schema=ARGUMENTS)))
        text = "".join(event.text for event in found if isinstance(event, TextDelta))
        assert calls_of(found) or set(json.loads(text)) == {"city", "days"}

        found = await answer(worker, talk(*history, tools=TOOLS), max_tokens=200)
        assert isinstance(found[-1], AnswerEnded)
