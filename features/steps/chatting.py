"""Steps of a user who talks with a model on a terminal, and gives models names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pytest_bdd import parsers, then, when

from features.lab.terminal import Shown
from tests.kit.emulated_terminal import EmulatedTerminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from features.lab.machine import Machine
    from features.lab.seen import Seen

LAST_LINE = "first token after"
"""Of the line below each answer."""


@pytest.fixture
def chats() -> Iterator[list[EmulatedTerminal]]:
    """The chats of a scenario; none outlives it."""
    found: list[EmulatedTerminal] = []
    yield found
    for chat in found:
        chat.kill()


@when("the user talks on a terminal")
def _chat(machine: Machine, chats: list[EmulatedTerminal]) -> None:
    env = machine.env | {"TERM": "xterm-256color"}
    chats.append(EmulatedTerminal(machine.command("chat"), env, folder=machine.home, columns=100, rows=30))


@when(parsers.parse('asks "{question}"'))
def _ask(chats: list[EmulatedTerminal], question: str) -> None:
    chats[0].say(question)


@when(parsers.parse('types "{line}"'))
def _type(chats: list[EmulatedTerminal], line: str) -> None:
    chats[0].say(line)


@when("leaves")
def _leave(chats: list[EmulatedTerminal], seen: Seen) -> None:
    chats[0].say("/exit")
    code = chats[0].finish()
    seen.shown = seen.done = Shown(code, chats[0].text)


@then("each answer was drawn with a line about model, node and speeds")
def _drawn(seen: Seen) -> None:
    said = " ".join(seen.shown.text.split())
    assert said.count(LAST_LINE) == 3, seen.shown.text
    assert said.count("with builtin:bee-stories on local; prompt: ") == 3
    assert "/help shows what can be done" in said


@then("bees.md holds both questions with their last answers")
def _saved(machine: Machine, seen: Seen) -> None:
    parts = (machine.home / "bees.md").read_text().split("\n\n## ")
    assert [part.partition("\n")[0] for part in parts[1:]] == ["You", "Model", "You", "Model"]
    assert "Hello, who are you?" in parts[1]
    assert "What do bees eat?" in parts[3]
    words = " ".join(seen.shown.text.split())
    for answer in (parts[2], parts[4]):
        assert " ".join(answer.partition("\n\n")[2].split())[:40] in words


@then("what was typed is kept where the user alone can read it")
def _kept(machine: Machine) -> None:
    history = machine.state / "chat_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+What do bees eat?\n" in history.read_text()


@when(parsers.parse('the user calls the bundled model "{name}"'))
def _name(machine: Machine, seen: Seen, name: str) -> None:
    seen.done = machine.run("models", "alias", name, "builtin:bee-stories")
    assert seen.done.returncode == 0, seen.done.stderr.decode()


@when(parsers.parse("the user has {name} stand for itself"))
def _loop_back(machine: Machine, seen: Seen, name: str) -> None:
    seen.done = machine.run("models", "alias", name, name)


@when(parsers.parse('runs {name} with the prompt "{prompt}"'))
def _run(machine: Machine, seen: Seen, name: str, prompt: str) -> None:
    seen.done = machine.run("run", name, *prompt.split())


@then(parsers.parse("a client of OpenAI's API finds {name}, and gets an answer of it"))
def _answered(machine: Machine, name: str) -> None:
    with machine.queen() as queen:
        listed = {one["id"]: one.get("reference") for one in queen.get("/v1/models").json()["data"]}
        body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 20}
        answer = queen.post("/v1/chat/completions", json=body).json()
    assert listed[name] == "builtin:bee-stories"
    assert (answer["model"], bool(answer["choices"][0]["message"]["content"])) == (name, True)


@then(parsers.parse("models show and models list know {name}"))
def _shown(machine: Machine, name: str) -> None:
    assert machine.run("models", "show", name).stdout.startswith(b"builtin:bee-stories\n")
    (alias,) = json.loads(machine.run("models", "list", "--json").stdout)["aliases"]
    assert (alias["name"], alias["model"], alias["problem"]) == (name, "builtin:bee-stories", None)


@then("stderr says that it leads back to itself")
def _loop(seen: Seen) -> None:
    assert "leads back to itself: storyteller → storyteller" in seen.done.stderr.decode()  # type: ignore[union-attr]
