"""What leaves the machine of a log: lines, whatever the bytes are, without stacks, folders and secrets."""

from __future__ import annotations

import json
import logging
import sys

import hypothesis
import hypothesis.strategies as st
import msgspec
import pytest

from rbee.adapters.logs import json_log
from rbee.adapters.logs.redaction import MAX_LINE, Entry, Lines
from rbee.wire.logs import LogLine


def messages(entries: list[Entry]) -> list[str]:
    return [entry.line.message for entry in entries]


def record(message: object, **values: object) -> bytes:
    written = {"time": "2026-01-02T03:04:05.678Z", "level": "info", "message": message} | values
    return json.dumps(written).encode() + b"\n"


def shown(text: str) -> str:
    (message,) = messages(Lines("hive").feed(record(text)))
    return message


def test_a_line_comes_once_it_is_whole() -> None:
    lines = Lines("hive")
    assert messages(lines.feed(b"one\ntw")) == ["one"]
    assert messages(lines.feed(b"o\nthree\nfo")) == ["two", "three"]
    assert messages(lines.feed(b"u")) == []
    assert messages(lines.end()) == ["fou"]
    assert lines.end() == []


def test_a_line_of_ours_keeps_what_stands_beside_its_message() -> None:
    (entry,) = Lines("hive").feed(record("it runs", correlation_id="abc", role="rbee-hive"))
    assert entry.line == LogLine(
        source="hive", message="it runs", time="2026-01-02T03:04:05.678Z", level="info", correlation_id="abc"
    )


def test_a_native_line_stands_at_the_time_of_the_one_before() -> None:
    lines = Lines("worker-1")
    first, second = lines.feed(record("ours") + b"GGML_ASSERT(n > 0) failed\n")
    assert (second.at, second.line) == (
        first.line.time,
        LogLine(source="worker-1", message="GGML_ASSERT(n > 0) failed"),
    )


def test_the_interpreters_stacks_are_left_out_wherever_the_bytes_are_cut() -> None:
    text = (
        b"before\nFatal Python error: Aborted\n\nCurrent thread 0x00007f (most recent call first):\n"
        b'  File "/home/me/engine.py", line 7 in run\n  File "/home/me/daemon.py", line 8\n\nafter\n'
    )
    for cut in range(len(text)):
        lines = Lines("hive")
        found = messages(lines.feed(text[:cut]) + lines.feed(text[cut:]))
        assert found == ["before", "Fatal Python error: Aborted", "after"]


def test_a_traceback_of_ours_becomes_the_name_of_the_exception() -> None:
    try:
        int("hunter2")
    except ValueError:
        failed = logging.LogRecord("x", logging.ERROR, "", 0, "a stream failed", (), sys.exc_info())
    (entry,) = Lines("hive").feed(json_log.JsonFormatter("r").format(failed).encode() + b"\n")
    assert entry.line.message == "a stream failed (ValueError)"
    assert "hunter2" not in repr(entry)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("cannot open /home/me/models/x.gguf", "cannot open …/x.gguf"),
        ("in '/home/me/a'; (~/b/c)", "in '…/a'; (…/c)"),
        ("at http://127.0.0.1:9200/v1/x/y", "at http://127.0.0.1:9200/v1/x/y"),
        ("POST /v1/workers/spawn failed", "POST /v1/workers/spawn failed"),
        ("45.9 tokens/s, and/or 1/2", "45.9 tokens/s, and/or 1/2"),
        ("key rbee_0123456789abcdef0123 and rbee_w_0123456789abcdef", "key rbee_… and rbee_…"),
    ],
)
def test_folders_and_secrets_are_left_out(written: str, expected: str) -> None:
    assert shown(written) == expected


def test_a_line_without_end_takes_bounded_memory() -> None:
    lines = Lines("hive")
    for _ in range(100):
        assert lines.feed(b"x" * MAX_LINE) == []
    assert messages(lines.feed(b"\nnext\n")) == ["x" * MAX_LINE + "…", "next"]


@pytest.mark.parametrize("values", [{"message": 7}, {"time": 7, "level": [], "message": "\ud800"}])
def test_a_line_of_odd_values_is_a_line(values: dict[str, object]) -> None:
    (entry,) = Lines("hive").feed(json.dumps(values).encode() + b"\n")
    assert (entry.line.time, entry.line.level) == (None, None)
    msgspec.json.encode(entry.line)


@hypothesis.given(st.binary(max_size=300), st.text(max_size=100), st.integers(0, 300))
def test_any_content_can_be_sent(raw: bytes, message: str, cut: int) -> None:
    lines = Lines("hive")
    content = raw + b"\n" + record(message, time=message, level=message)
    for entry in lines.feed(content[:cut]) + lines.feed(content[cut:]) + lines.end():
        assert msgspec.json.decode(msgspec.json.encode(entry.line), type=LogLine) == entry.line
        assert "\n" not in entry.line.message or message.count("\n")
