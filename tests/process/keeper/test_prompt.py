"""The prompt from the command line and from standard input, whatever that is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.kit.paths import ROOT

PROGRAM = """
import sys
from rbee.adapters.arguments import UsageError
from rbee.errors import RbeeError
from rbee.keeper.command_line import piped, prompt
piped.NOTICE_SECONDS, piped.GIVE_UP_SECONDS = 0.1, 0.2
option = sys.argv[1] if len(sys.argv) > 1 else None
try:
    read = prompt.read(option, lambda text: print("note:", text, file=sys.stderr, flush=True))
except (RbeeError, UsageError) as exc:
    sys.exit(exc.message)
sys.stdout.buffer.write(read.encode())
"""


def start(option: str | None, stdin: int | IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *([] if option is None else [option])],
        cwd=ROOT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(child: subprocess.Popen[bytes], data: bytes | None = None) -> tuple[str, str]:
    out, err = child.communicate(data, timeout=50)
    return out.decode(), err.decode()


@pytest.mark.parametrize(
    ("option", "data", "read"),
    [
        ("Review:", b"a\nb\n", "Review:\n\na\nb"),
        ("Review:", b"", "Review:"),
        ("Review:", b"\n", "Review:"),
        ("Review:", b"\r\n", "Review:"),
        ("Review:", b"\xef\xbb\xbf", "Review:"),
        ("Review:", b"\xef\xbb\xbfa\r\n", "Review:\n\na"),
        ("\ufeffReview:", b"a", "Review:\n\na"),
        (None, b"\xef\xbb\xbfOnce\r\n", "Once"),
        (None, "Der Bär\r\n".encode("utf-16"), "Der Bär"),
        (None, b"\xfe\xff" + "Der Bär".encode("utf-16-be"), "Der Bär"),
        (None, "🐝\n".encode("utf-32"), "🐝"),
        (None, "no mark \ufeff here".encode(), "no mark \ufeff here"),
    ],
)
def test_piped_text_follows_the_prompt_without_its_byte_order_mark(option: str | None, data: bytes, read: str) -> None:
    assert end(start(option, subprocess.PIPE), data) == (read, "")


@pytest.mark.parametrize(
    ("option", "data", "said"),
    [
        (None, b"\xef\xbb\xbf\n", "the prompt is empty (standard input)"),
        (None, b"\xff\xfeA", "the prompt is not valid UTF-16-LE: byte 3 of standard input"),
        ("Review:", b"\xff", "the prompt is not valid UTF-8: byte 1 of standard input"),
        ("Review:", b"a\0", "the prompt holds a NUL character: character 2 of standard input"),
        ("x" * 90_000, b"x" * 910_000, "the prompt has more than 1,000,000 characters"),
        ("", b"text", "the prompt is empty (--prompt)"),
    ],
)
def test_what_is_joined_is_checked_as_a_whole(option: str | None, data: bytes, said: str) -> None:
    assert end(start(option, subprocess.PIPE), data) == ("", f"{said}\n")


def test_a_file_and_nothing_at_all(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"a\n")
    with path.open("rb") as file:
        assert end(start("Review:", file)) == ("Review:\n\na", "")
    assert end(start("Review:", subprocess.DEVNULL)) == ("Review:", "")
    assert end(start(None, subprocess.DEVNULL)) == ("", "the prompt is empty (standard input)\n")
    # As nohup opens it.
    with Path(os.devnull).open("wb") as file:
        assert end(start("Review:", file)) == ("Review:", "")
        assert end(start(None, file)) == ("", "there is no prompt\n")
    with Path("/proc/self/mem").open("rb") as file:
        assert end(start("Review:", file)) == ("", "standard input cannot be read: Input/output error\n")


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_an_input_that_nobody_writes_is_given_up_with_a_word(kind: str) -> None:
    """As `ssh HOST rbee …`, a service manager, or a script that passes its own input on."""
    if kind == "pipe":
        reading, writing = os.pipe()
    else:
        reading, writing = (end.detach() for end in socket.socketpair())
    child = start("Review:", reading)
    out, err = end(child)
    os.close(reading)
    os.close(writing)
    assert out == "Review:"
    told = err.splitlines()
    assert told[0].startswith("note: Waiting 0.2 s for standard input")
    assert told[1:] == ["note: Nothing came on standard input; the prompt is --prompt alone"]


@pytest.mark.parametrize("option", ["Review:", None])
def test_a_slow_program_is_waited_for_with_a_word(option: str | None) -> None:
    """`make | rbee infer`: what comes late belongs to the prompt."""
    slow = "import sys; sys.stdin.read(); print('late')"
    producer = subprocess.Popen([sys.executable, "-c", slow], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert producer.stdout is not None
    assert producer.stdin is not None
    child = start(option, producer.stdout)
    producer.stdout.close()
    assert child.stderr is not None
    assert child.stderr.readline() == b"note: Waiting for text on standard input\n"
    producer.stdin.close()
    assert end(child) == ("late" if option is None else "Review:\n\nlate", "")
    assert producer.wait(50) == 0
