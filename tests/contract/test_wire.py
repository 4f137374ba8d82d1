"""The messages' JSON is what it was: a change here is a change for every other version and every other program."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from rbee.wire import common, hive, queen, worker
from rbee.wire.common import Message, Request

GOLDEN = Path(__file__).parent / "golden"
MODULES = (
    "administration.aliases",
    "administration.keys",
    "administration.requests",
    "chat.answer",
    "chat.conversation",
    "chat.template",
    "common",
    "model_copy",
    "model_push",
    "events",
    "gguf",
    "hive",
    "logs",
    "models",
    "progress",
    "queen",
    "registry",
    "worker",
)
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"


def _kinds(module: str) -> dict[str, type[msgspec.Struct]]:
    """Return the messages that a module of the wire defines, but for the bases of others."""
    found = importlib.import_module(f"rbee.wire.{module}")
    return {
        name: kind
        for name, kind in inspect.getmembers(found, inspect.isclass)
        if issubclass(kind, (Message, Request)) and kind.__module__ == found.__name__ and kind not in (Message, Request)
    }


EXAMPLES = [
    (module, name, example)
    for module in MODULES
    for name, examples in json.loads((GOLDEN / f"{module}.json").read_text()).items()
    for example in examples
]


@pytest.mark.parametrize("module", MODULES)
def test_every_message_has_an_example(module: str) -> None:
    golden = json.loads((GOLDEN / f"{module}.json").read_text())
    assert set(golden) == set(_kinds(module))
    assert all(golden.values())


@pytest.mark.parametrize(("module", "name", "example"), EXAMPLES)
def test_an_example_is_read_and_written_again(module: str, name: str, example: dict[str, Any]) -> None:
    """Byte for byte, the order of fields too: what is sent may be compared and is read by people."""
    text = json.dumps(example, separators=(",", ":"), ensure_ascii=False).encode()
    assert msgspec.json.encode(msgspec.json.decode(text, type=_kinds(module)[name])) == text


@pytest.mark.parametrize("module", MODULES)
def test_every_field_stands_in_an_example(module: str) -> None:
    golden = json.loads((GOLDEN / f"{module}.json").read_text())
    for name, kind in _kinds(module).items():
        shown = {field for example in golden[name] for field in example}
        tag = {kind.__struct_config__.tag_field} - {None}
        assert shown == set(kind.__struct_fields__) | tag, name


@pytest.mark.parametrize("module", MODULES)
def test_answers_may_grow_and_requests_may_not_be_misspelt(module: str) -> None:
    golden = json.loads((GOLDEN / f"{module}.json").read_text())
    for name, kind in _kinds(module).items():
        more = json.dumps(golden[name][0] | {"from_a_newer_version": 1}).encode()
        if issubclass(kind, Request):
            with pytest.raises(msgspec.ValidationError):
                msgspec.json.decode(more, type=kind)
        else:
            msgspec.json.decode(more, type=kind)


def test_the_defaults_are_the_documented_ones() -> None:
    task = queen.TaskRequest(prompt="x")
    assert (task.max_tokens, task.temperature, task.relay, task.raw, task.narrate) == (UNSET, 0.7, False, False, False)
    inference = worker.InferenceRequest(prompt="x")
    assert (inference.max_tokens, inference.temperature, inference.stream) == (UNSET, 0.7, True)


def test_what_a_task_may_say_an_inference_may_say() -> None:
    """The relay passes a task's sampling on; a field that one of them lacks would be lost on the way."""
    only_task = {"node", "worker_id", "model", "backend", "device", "relay", "wait_s", "context"}
    assert set(queen.TaskRequest.__struct_fields__) - only_task == (
        set(worker.InferenceRequest.__struct_fields__) - {"stream"}
    )


def test_an_empty_list_of_workers_is_exactly_that() -> None:
    assert msgspec.json.encode(hive.WorkerList(workers=[])) == b'{"workers":[]}'


def test_the_numbers_of_the_wire() -> None:
    assert common.MAX_BODY_BYTES == 16 * 1024 * 1024
    assert common.API_VERSION == "v1"
    assert common.DONE == "[DONE]"
