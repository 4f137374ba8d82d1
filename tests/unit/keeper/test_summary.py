"""The line below an answer."""

from __future__ import annotations

import pytest

from rbee.keeper.inference import summary
from rbee.wire.queen import TaskHandle, TaskRequest
from rbee.wire.worker import Done

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
