"""The line below an answer."""

from __future__ import annotations

import pytest

from rbee.keeper.chat.totals import Totals
from rbee.keeper.inference import summary
from rbee.wire.chat.answer import Usage
from rbee.wire.queen import TaskHandle, TaskRequest
from rbee.wire.worker import Done, Timings

HANDLE = TaskHandle(request_id="r", node="attic", worker_id="w", worker_url="http://x:8001", api_key="k", state="idle")


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("file:/home/bee/my models/qwen 3.gguf", "qwen 3.gguf"),
        ("hf:ORG/REPO:Q4_K_M", "hf:ORG/REPO:Q4_K_M"),
        ("hf:ORG/REPO/FILE.gguf", "hf:ORG/REPO/FILE.gguf"),
        ("coder", "coder"),
    ],
)
def test_a_file_is_named_without_its_folders(model: str, shown: str) -> None:
    done = Done(total_tokens=2, duration_ms=1, stop_reason="eos")
    line = summary.last_line(TaskRequest(prompt="x", model=model), HANDLE, done)
    assert line == f"Generated 2 tokens with {shown} on attic"


@pytest.mark.parametrize(
    ("cached", "shown"),
    [
        (0, "100 tokens at 50.0 tokens/s"),
        (60, "100 tokens (60 cached) at 20.0 tokens/s"),
        (99, "100 tokens (99 cached)"),
        (100, "100 tokens (100 cached)"),
    ],
)
def test_a_speed_is_that_of_what_was_read(cached: int, shown: str) -> None:
    timings = Timings(prompt_tokens=100, prompt_ms=2000, first_token_ms=2000, text_ms=10, cached_tokens=cached)
    done = Done(total_tokens=1, duration_ms=1, stop_reason="eos", timings=timings)
    line = summary.last_line(TaskRequest(prompt="x", model="m"), HANDLE, done)
    assert line == f"Generated 1 token with m on attic; prompt: {shown}, first token after 2.00 s"
    totals = Totals()
    for _ in range(2):
        totals.add(done, Usage(prompt_tokens=100, completion_tokens=1, cached_tokens=cached))
    speed = {0: ", 50.0 tokens/s", 60: ", the others at 20.0 tokens/s"}.get(cached, "")
    assert f"\nprompts: 200 tokens, {2 * cached} of them cached{speed}\n" in totals.lines("m", 2)
