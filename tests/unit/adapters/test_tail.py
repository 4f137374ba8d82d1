"""The end of a log is for people: messages instead of JSON, native lines as they are, and nothing that draws."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import hypothesis
import hypothesis.strategies as st
import pytest

from rbee.adapters.logs import json_log, tail

if TYPE_CHECKING:
    from pathlib import Path


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert tail.last_lines(log) == [f"line {number}" for number in range(99_980, 100_000)]
    assert tail.last_lines(log, 2) == ["line 99998", "line 99999"]


def test_a_line_of_ours_becomes_its_message_and_a_native_one_stays(tmp_path: Path) -> None:
    log = tmp_path / "log"
    record = logging.LogRecord("x", logging.ERROR, "", 0, "worker %d has ended", (7,), None)
    lines = [
        json_log.JsonFormatter("r").format(record),
        "GGML_ASSERT(n > 0) failed",
        "{ braces of C++ }",
        '{"a": 1}',
        "[1]",
    ]
    log.write_text("\n".join(lines) + "\n")
    assert tail.last_lines(log) == ["worker 7 has ended", *lines[1:]]


def test_the_interpreters_stacks_are_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "before\n"
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x00007f (most recent call first):\n"
        '  File "/home/me/engine.py", line 7 in run\n'
        '  File "/home/me/daemon.py", line 8 in main\n\n'
        "Extension modules: msgspec._core (total: 1)\n"
        "Traceback (most recent call last):\n"
        '  File "/home/me/x.py", line 1, in <module>\n'
        "    int(text)\n"
        "    ~~~^^^^^^\n"
        "ValueError: no number\n"
        "  indented, and said by native code\n"
    )
    assert tail.last_lines(log) == [
        "before",
        "Fatal Python error: Segmentation fault",
        "ValueError: no number",
        "  indented, and said by native code",
    ]


def test_a_message_of_several_lines_is_several_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(json.dumps({"message": "the versions differ\n  queen 1\n\n  hive 2"}) + "\n")
    assert tail.last_lines(log) == ["the versions differ", "  queen 1", "  hive 2"]
    assert tail.last_lines(log, 1) == ["  hive 2"]


def test_nothing_can_draw_on_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = "\ttab\x1b[31mred\x07\x9b\u202e\ud800"
    log.write_bytes(json.dumps({"message": text}).encode() + b"\n\x1b]0;title\x07\r\n")
    assert tail.last_lines(log) == [r"    tab\x1b[31mred\x07\x9b\u202e\ud800", r"\x1b]0;title\x07"]


def test_what_was_rotated_away_stands_before(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("1\n2\n3\n")
    (tmp_path / "log").write_text("4\n5\n")
    assert tail.last_lines(tmp_path / "log", 4) == ["2", "3", "4", "5"]
    assert tail.last_lines(tmp_path / "log", 1) == ["5"]
    (tmp_path / "log").unlink()
    assert tail.last_lines(tmp_path / "log", 1) == ["3"]


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(json.dumps({"message": "x" * tail.MAX_BYTES}) + "\nthe end\n")
    assert tail.last_lines(log) == ["the end"]


def test_a_long_line_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 200_000)
    assert tail.last_lines(log) == ["x" * (tail.MAX_WIDTH - 1) + "…"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"message": 7}', b'{"message":' * 10_000, b"[" * 10_000])
def test_any_line_can_be_shown(tmp_path: Path, content: bytes) -> None:
    log = tmp_path / "log"
    log.write_bytes(content)
    assert all(len(line) <= tail.MAX_WIDTH for line in tail.last_lines(log))


@hypothesis.given(st.binary(max_size=300), st.text(max_size=100))
def test_any_content_can_be_shown(tmp_path_factory: pytest.TempPathFactory, raw: bytes, message: str) -> None:
    log = tmp_path_factory.mktemp("any") / "log"
    log.write_bytes(raw + b"\n" + json.dumps({"message": message}).encode())
    lines = tail.last_lines(log)
    assert len(lines) <= tail.LAST_LINES
    assert all(line.isprintable() and line.strip() for line in lines)


def test_a_log_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert tail.last_lines(tmp_path / "log") == []
    assert tail.last_lines(tmp_path) == []
