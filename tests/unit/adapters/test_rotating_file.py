"""A log file stays bounded, takes stderr along, and is there again when the disk is."""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rbee.adapters.logs.rotating_file import LogFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = __file__.partition("/tests/")[0]


@pytest.fixture
def open_log() -> Iterator[Callable[..., Callable[[str], None]]]:
    """Give a function that opens a log file and returns what writes a line to it."""
    opened: list[LogFile] = []

    def begin(path: Path, max_bytes: int = 10_000) -> Callable[[str], None]:
        file = LogFile(path, max_bytes)
        opened.append(file)
        return lambda line: file.handle(logging.LogRecord("x", logging.INFO, "", 0, "%s", (line,), None)) and None

    yield begin
    for file in opened:
        file.close()


Open = "Callable[..., Callable[[str], None]]"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_the_file_is_private(tmp_path: Path, open_log: Open) -> None:
    open_log(tmp_path / "log")("secret or not")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_it_is_rotated_and_one_older_file_kept(tmp_path: Path, open_log: Open) -> None:
    write = open_log(tmp_path / "log", 2000)
    for number in range(1000):
        write(f"line {number}")
        assert (tmp_path / "log").stat().st_size <= 2000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]
    kept = lines(tmp_path / "log.1") + lines(tmp_path / "log")
    assert kept == [f"line {number}" for number in range(1000)][-len(kept) :]
    assert (tmp_path / "log.1").stat().st_size > 1900


def test_what_was_there_before_counts(tmp_path: Path, open_log: Open) -> None:
    (tmp_path / "log").write_text("native\n" * 200)
    open_log(tmp_path / "log", 1404)("ours")
    assert lines(tmp_path / "log") == ["ours"]
    assert lines(tmp_path / "log.1") == ["native"] * 200


def test_a_line_that_is_longer_than_a_file_is_written_whole(tmp_path: Path, open_log: Open) -> None:
    write = open_log(tmp_path / "log", 100)
    for letter in "ab":
        write(letter * 1000)
    assert lines(tmp_path / "log") == ["b" * 1000]
    assert lines(tmp_path / "log.1") == ["a" * 1000]


def test_a_file_that_was_removed_is_made_again(tmp_path: Path, open_log: Open) -> None:
    write = open_log(tmp_path / "log")
    write("old")
    (tmp_path / "log").unlink()
    write("new")
    assert lines(tmp_path / "log") == ["new"]
    (tmp_path / "log").rename(tmp_path / "elsewhere")
    (tmp_path / "log").write_text("other\n")
    write("newer")
    assert lines(tmp_path / "log") == ["other", "newer"]


def test_lines_that_were_lost_are_told(tmp_path: Path, open_log: Open, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    write = open_log(tmp_path / "folder/log")
    (tmp_path / "folder").rmdir()
    for _ in range(3):
        write("lost")
    (tmp_path / "folder").mkdir()
    write("kept")
    write("kept")
    lost, *kept = lines(tmp_path / "folder/log")
    assert lost.startswith("3 lines were lost here")
    assert kept == ["kept", "kept"]
    assert capsys.readouterr().err == ""


def test_a_full_disk_stops_nobody(tmp_path: Path, open_log: Open, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    write = open_log(tmp_path / "log")
    for _ in range(100):
        write("does not fit")
    (tmp_path / "log").unlink()
    write("fits")
    assert lines(tmp_path / "log")[1:] == ["fits"]
    assert capsys.readouterr().err == ""


def test_half_a_line_is_taken_back(tmp_path: Path, open_log: Open) -> None:
    """A file may grow to 20 bytes: what the kernel does at a limit of its own it does at the end of the disk too."""
    write = open_log(tmp_path / "log")
    write("0123456789")
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        write("0123456789")
        write("01234")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert lines(tmp_path / "log") == ["0123456789"]
    write("again")
    assert lines(tmp_path / "log")[0::2] == ["0123456789", "again"]
    assert lines(tmp_path / "log")[1].startswith("2 lines were lost")


def test_a_record_that_cannot_be_formatted_is_told_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = LogFile(tmp_path / "log", 10_000)
    file.handle(logging.LogRecord("x", logging.INFO, "", 0, "%d", ("no number",), None))
    assert "Logging error" in capsys.readouterr().err
    file.close()


PROGRAM = """
import logging, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from rbee.adapters.logs.rotating_file import LogFile
{before}
file = LogFile(Path({path!r}), 1000)
os.write(2, b"before\\n") if {speaks} else None
for number in range(300):
    file.handle(logging.LogRecord("x", logging.INFO, "", 0, "line %d", (number,), None))
os.write(2, b"the last breath\\n")
"""


def run(path: Path, stderr: Path, *, before: str = "", speaks: bool = True) -> None:
    with stderr.open("ab") as errors:
        program = PROGRAM.format(root=ROOT, path=str(path), before=before, speaks=speaks)
        subprocess.run([sys.executable, "-c", program], stderr=errors, check=True)


def test_stderr_moves_along_where_it_leads_to_the_file(tmp_path: Path) -> None:
    run(tmp_path / "log", tmp_path / "log")
    assert lines(tmp_path / "log")[-2:] == ["line 299", "the last breath"]
    assert (tmp_path / "log.1").stat().st_size <= 1000


def test_stderr_that_goes_nowhere_finds_the_file(tmp_path: Path) -> None:
    """As it does where the disk was too full to make the file."""
    run(tmp_path / "log", Path(os.devnull))
    assert lines(tmp_path / "log")[-2:] == ["line 299", "the last breath"]


def test_a_closed_stderr_finds_the_file(tmp_path: Path) -> None:
    run(tmp_path / "log", tmp_path / "other", before="os.close(2)", speaks=False)
    assert lines(tmp_path / "log")[-2:] == ["line 299", "the last breath"]


def test_stderr_that_leads_elsewhere_stays(tmp_path: Path) -> None:
    run(tmp_path / "log", tmp_path / "other")
    assert lines(tmp_path / "other") == ["before", "the last breath"]
    assert lines(tmp_path / "log")[-1] == "line 299"
