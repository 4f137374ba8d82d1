"""What llama.cpp says is kept and logged: bounded, and without the folders of files."""

from __future__ import annotations

import logging
import threading

import pytest

from rbee.worker.llama.complaints import Complaints

WARNING, ERROR, INFO, CONTINUED = 3, 4, 2, 5


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("load_tensors: failed\n", "load_tensors: failed"),
        ("failed to open /home/me/my models/x.gguf: No such file", "failed to open my models/x.gguf: No such file"),
        ("failed to open '/a/b/x.gguf'", "failed to open 'x.gguf'"),
        ("path=/a/b/x.gguf", "path=x.gguf"),
        ("/build/llama.cpp/ggml/src/ggml.c:7: GGML_ASSERT(a / b) failed", "ggml.c:7: GGML_ASSERT(a / b) failed"),
        ("n_tokens 3/4, a/b/c, and // or /x", "n_tokens 3/4, a/b/c, and // or /x"),
        ("a" * 100_000, "a" * 2000),
        ("\x1b[31m", "\x1b[31m"),
    ],
)
def test_a_line_is_kept_without_folders(caplog: pytest.LogCaptureFixture, said: str, kept: str) -> None:
    complaints = Complaints()
    complaints.take(ERROR, said.encode())
    assert complaints.lines() == [kept]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.ERROR, kept)]


def test_what_is_well_is_neither_kept_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    complaints = Complaints()
    for level, text in ((INFO, b"loaded"), (CONTINUED, b"."), (WARNING, b" \n")):
        complaints.take(level, text)
    assert complaints.lines() == []
    assert caplog.records == []


def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    complaints = Complaints()
    complaints.take(WARNING, b"\xff\xfe")
    assert complaints.lines() == ["\ufffd\ufffd"]


def test_a_thread_that_aborts_is_not_heard_and_all_others_are() -> None:
    complaints = Complaints()
    is_aborted = False
    with complaints.muted_while(lambda: is_aborted):
        complaints.take(ERROR, b"before")
        is_aborted = True
        complaints.take(ERROR, b"the abort")
        other = threading.Thread(target=complaints.take, args=(ERROR, b"another context"))
        other.start()
        other.join()
    complaints.take(ERROR, b"after")
    assert complaints.lines() == ["before", "another context", "after"]
    complaints.clear()
    assert complaints.lines() == []
