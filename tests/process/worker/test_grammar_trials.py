"""Grammars that would end the process that compiles them are tried in one of their own."""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

import pytest

from rbee.errors import InvalidRequestError
from rbee.wire.chat.conversation import ChatMessage, Conversation, Grammar, JsonSchema, OutputFormat, TextPart
from rbee.worker.llama import grammar_trial
from rbee.worker.output.control_tokens import ControlTokens
from rbee.worker.output.families import family_of
from rbee.worker.output.grammar import grammar_of
from rbee.worker.serving import grammar_trials
from rbee.worker.serving.grammar_trials import GrammarTrials, is_tame
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llguidance") is None, reason="needs the engine")


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "rbee" / "__main__.py")])


def built(form: OutputFormat) -> str:
    asked = Conversation(messages=[ChatMessage(role="user", content=[TextPart(text="?")])], format=form)
    found = grammar_of(asked, family_of(None).syntax, ControlTokens({}), is_thinking=False, may_think=False)
    assert found is not None
    return found


def schema(value: Any) -> str:
    return built(JsonSchema(schema=value))


def chain(length: int) -> str:
    """Return a schema in which each definition needs the next one."""
    defs: dict[str, Any] = {f"x{length}": {"type": "string"}}
    for number in range(length):
        value = {"$ref": f"#/$defs/x{number + 1}"}
        defs[f"x{number}"] = {"type": "object", "properties": {"a": value}, "required": ["a"]}
    return schema({"$defs": defs, "$ref": "#/$defs/x0"})


HARMFUL = {
    "memory": schema({"type": "array", "minItems": 10**9}),
    "stack": chain(1000),
    "stack of another's grammar": built(
        Grammar(syntax="lark", text="\n".join(f"r{n}: r{n + 1}" for n in range(2000)) + '\nr2000: "b"\nstart: r0')
    ),
    "large": schema({"const": "x" * 1_000_000}),
    "wrong": schema({"description": "x" * 10_000, "type": 7}),
}


@pytest.mark.parametrize("name", HARMFUL)
async def test_what_would_end_the_worker_is_refused(name: str) -> None:
    assert not is_tame(HARMFUL[name])
    with pytest.raises(InvalidRequestError, match="cannot be kept to: ") as refused:
        await GrammarTrials().safe(HARMFUL[name])
    assert len(refused.value.message) < 500


def test_what_takes_long_for_each_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trial, "MOST_STEP_SECONDS", 0.01)  # on a fast machine nothing that compiles takes more
    assert "it is too complex: a token takes" in grammar_trial.tried(schema({"const": "x" * 400_000})).reason
    assert grammar_trial.tried(schema({"const": "x"})).reason == ""


async def test_what_is_large_and_means_no_harm_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = GrammarTrials()
    large = schema({"type": "object", "properties": {f"field_{number}": {"type": "integer"} for number in range(300)}})
    control = "%llguidance {}\nstart: <[151644]> /x{1,20000}/ <[3,7]>"
    gbnf = built(Grammar(syntax="gbnf", text="root ::= " + " | ".join(f'"word {number}"' for number in range(300))))
    assert await trials.safe(large) == large
    assert await trials.safe(control) == control
    lark = await trials.safe(gbnf)
    assert "gbnf" not in lark
    assert "word 299" in json.loads(lark)["grammars"][1]["lark_grammar"]
    monkeypatch.setattr(grammar_trials, "process", None)  # nothing is started any more
    assert [await trials.safe(one) for one in (large, control, gbnf)] == [large, control, lark]
    usual = schema({"type": "object", "properties": {"year": {"type": "integer", "maximum": 2030}}})
    assert await trials.safe(usual) == usual
