"""When a request whose worker has failed is tried once more: before its answer has begun, and once."""

from __future__ import annotations

import json

import pytest

from rbee.errors import (
    AllSlotsBusyError,
    DrainingError,
    InternalError,
    InvalidRequestError,
    LoadingTimeoutError,
    ModelLoadFailedError,
    OutOfMemoryError,
    RbeeError,
    SpawnFailedError,
    WorkerFailedError,
    WorkerNotReadyError,
)
from rbee.narrower_errors import WorkerDrainingError
from rbee.queen.requests.second_try import SecondTry
from rbee.wire.error_body import to_body

PROMPT = '{"type":"prompt","tokens":7}'


def passes(second: SecondTry, *events: str, name: str = "message") -> list[bool]:
    return [second.passes_on(name, event) for event in events]


@pytest.mark.parametrize(
    "error", [WorkerFailedError, SpawnFailedError, OutOfMemoryError, DrainingError, WorkerNotReadyError]
)
def test_what_another_worker_may_not_suffer_is_tried_once_and_never_twice(error: type[RbeeError]) -> None:
    second = SecondTry()
    assert second.take(error("m"))
    assert not second.take(error("m"))
    assert not second.take(WorkerDrainingError("m", worker_id="w"))


@pytest.mark.parametrize(
    "error", [ModelLoadFailedError, LoadingTimeoutError, InvalidRequestError, AllSlotsBusyError, InternalError]
)
def test_what_fails_anywhere_is_not_tried_again(error: type[RbeeError]) -> None:
    second = SecondTry()
    assert not second.take(error("m"))
    assert second.is_left


@pytest.mark.parametrize(
    "event",
    [
        '{"type":"text","text":"Once"}',
        '{"type": "text", "text": ""}',
        '{"type":"reasoning","text":"Hm"}',
        '{"type":"tool_call","index":0,"id":"a","name":"f"}',
        '{"token":"Once","index":0}',
        '{"done":true,"total_tokens":0}',
        '{"type":"choice_ended","reason":"stop"}',
        '{"type":"of a newer version"}',
        "not JSON",
        "[" * 10_000,
    ],
)
def test_once_the_answer_has_begun_there_is_none(event: str) -> None:
    second = SecondTry()
    assert passes(second, PROMPT, event) == [True, True]
    assert not second.take(WorkerFailedError("m"))


def test_progress_and_the_prompt_are_no_beginning_and_the_prompt_is_told_once() -> None:
    second = SecondTry()
    assert passes(second, '{"stage":"x"}', name="progress") == [True]
    assert passes(second, PROMPT) == [True]
    assert second.take(WorkerFailedError("m"))
    assert passes(second, PROMPT, '{"type":"text","text":"On"}', PROMPT) == [False, True, True]


def test_an_error_in_the_stream_is_raised_where_it_is_no_reason_to_give_up() -> None:
    second = SecondTry()
    lost = json.dumps(to_body(OutOfMemoryError("no room")))
    assert passes(second, json.dumps(to_body(ModelLoadFailedError("m"))), '{"error":{}}') == [True, True]
    with pytest.raises(OutOfMemoryError, match="no room"):
        second.passes_on("message", lost)
    assert second.take(OutOfMemoryError("no room"))
    assert passes(second, lost) == [True], "the client gets it"
