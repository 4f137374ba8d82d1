"""A model's chat template as a worker uses it: with the real engine, and with templates that mean harm."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from rbee.worker.chat.chat import open_chat
from rbee.worker.llama import header
from rbee.worker.llama.model import Model
from tests.conftest import ROOT
from tests.kit.histories import WEATHER, talk, user
from tests.kit.models import BEGIN, END, byte, make

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="needs the engine")

SHOUTING = "{{ messages[0].content }}A"
HARMFUL = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "bomb": "{% set x = namespace(v='xxxxxxxx') %}{% for i in range(60) %}{% set x.v = x.v ~ x.v %}{% endfor %}",
    "broken": "{{ messages[0].content",
}


def answer(queen: Any, model: Path, prompt: str, *, whole: bool = False, **more: Any) -> Any:
    with queen.client() as client:
        task = {"prompt": prompt, "model": f"file:{model}"}
        handle = client.post("/v2/tasks", json=task, timeout=60).json()
        key = {"Authorization": f"Bearer {handle['api_key']}"}
        deadline = time.monotonic() + 60
        while not client.get(f"{handle['worker_url']}/v1/ready").json()["ready"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        body = {"prompt": prompt, "max_tokens": 5, "temperature": 0, "stream": False} | more
        reply = client.post(f"{handle['worker_url']}/v1/inference", json=body, headers=key)
        assert reply.status_code == 200, reply.text
        found = reply.json()
        return (found["text"], found["prompt_tokens"]) if whole else found["text"]


def narrated(queen: Any, model: Path, prompt: str, **more: Any) -> list[str]:
    """Return what a worker that runs says about a request beside the text."""
    with queen.client() as client:
        handle = client.post("/v2/tasks", json={"prompt": prompt, "model": f"file:{model}"}, timeout=60).json()
        key = {"Authorization": f"Bearer {handle['api_key']}"}
        body = {"prompt": prompt, "max_tokens": 5, "temperature": 0, "stream": True, "narrate": True} | more
        reply = client.post(f"{handle['worker_url']}/v1/inference", json=body, headers=key)
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: {")]
    return [event["human"] for event in map(json.loads, lines) if event.get("action") == "chat_template"]


def test_a_prompt_goes_through_the_models_template_unless_it_is_raw(daemons: Any, tmp_path: Path) -> None:
    """In these models each letter is followed by the next one: the answer shows the last token of the prompt."""
    queen = daemons.start("queen")
    model = make(tmp_path / "letters.gguf", chat_template=SHOUTING)
    assert answer(queen, model, "m") == "BCDEF"
    assert answer(queen, model, "m", raw=True) == "nopqr"
    # One that changes prompts is rendered for each: the number of tokens shows the rest of it.
    quoting = make(tmp_path / "quoted.gguf", chat_template="{{ messages[0].content | tojson }}{{ eos_token }}A")
    assert answer(queen, quoting, 'm"', whole=True) == ("BCDEF", len('"m\\""A') + 2)
    assert answer(queen, quoting, "</s>", whole=True) == ("BCDEF", len('"</s>"A') + 2), "in a prompt it is text"
    queen.signal()
    assert queen.wait(60)[0] == 0


async def test_a_real_vocabulary_reads_a_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])
    each = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    templates = [{"name": "default", "template": each}, {"name": "tool_use", "template": "T" + each}]
    path = make(tmp_path / "letters.gguf", chat_template=templates)
    with closing(Model(path, header.read(path))) as model:
        assert sorted(model.control_tokens()) == ["</s>", "<s>", "<unk>"]
        assert (model.chat_template, model.tools_template) == (each, "T" + each)
        async with open_chat(model) as chat:
            plain = await chat.history(talk(user("a</s>")))
            tools = await chat.history(talk(user("a</s>"), tools=[WEATHER]))
            letters = [byte(letter) for letter in "a</s>"]
            assert chat.marks.tokens(model, plain.text) == [BEGIN, *letters, END]
            assert tools.text.startswith("T")


def test_a_template_that_means_harm_only_goes_unused(daemons: Any, tmp_path: Path) -> None:
    queen = daemons.start("queen")
    for number, (name, template) in enumerate(HARMFUL.items(), 1):
        model = make(tmp_path / f"{name}.gguf", chat_template=template)
        assert answer(queen, model, "m") == "nopqr"
        logs = [log.read_text() for log in (queen.home / "logs").glob("worker-*.log")]
        assert len([log for log in logs if "chat template cannot be used" in log]) == number
        (told,) = narrated(queen, model, "m")
        assert told.startswith("The model's chat template cannot be used (")
        assert "UnusableError" not in told, "the program's own word, which says nothing to a user"
        assert "goes to the model as it is" in told
        assert narrated(queen, model, "m", raw=True) == []
    queen.signal()
    assert queen.wait(60)[0] == 0
    assert daemons.left() == []
