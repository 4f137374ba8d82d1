"""One JSON object a line, whatever is logged."""

from __future__ import annotations

import contextvars
import json
import logging
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import trio

from rbee.adapters.logs import json_log
from rbee.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("rbee.test")
MAX = 10_000_000
UUID = "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Give logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    chatty = {name: logging.getLogger(name).level for name in list(logging.Logger.manager.loggerDict)}
    token = json_log.correlation.set(None)
    yield
    json_log.correlation.reset(token)
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, was in chatty.items():
        logging.getLogger(name).setLevel(was)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_one_json_line(tmp_path: Path) -> None:
    json_log.to_file("rbee-hive", tmp_path / "logs/hive.log", MAX)
    log.warning("worker %s has %d slots", "w1", 4)
    (line,) = lines(tmp_path / "logs/hive.log")
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "role": "rbee-hive", "message": "worker w1 has 4 slots"}


def test_nothing_logged_can_draw_on_a_terminal(tmp_path: Path) -> None:
    text = "".join(map(chr, range(32))) + "\x7f\x80\x9b31m\u2028\u202e\ud800 red"
    json_log.to_file("r", tmp_path / "log", MAX)
    log.info("%s", text)
    raw = (tmp_path / "log").read_bytes()
    assert raw.count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in raw.rstrip(b"\n"))
    assert json.loads(raw)["message"] == text


def test_a_traceback_stays_in_the_line(tmp_path: Path) -> None:
    json_log.to_file("r", tmp_path / "log", MAX)
    try:
        int("no number")
    except ValueError:
        log.exception("failed")
    (line,) = lines(tmp_path / "log")
    assert "ValueError: invalid literal" in line["traceback"]
    assert line["message"] == "failed"


def test_the_correlation_id_of_the_request_stands_in_the_line(tmp_path: Path) -> None:
    json_log.to_file("r", tmp_path / "log", MAX)
    json_log.correlate(UUID)
    log.info("inside")
    assert lines(tmp_path / "log")[0]["correlation_id"] == UUID


async def test_each_task_has_a_correlation_id_of_its_own(tmp_path: Path) -> None:
    json_log.to_file("r", tmp_path / "log", MAX)
    other = str(uuid.uuid4())

    async def work(given: str) -> None:
        json_log.correlate(given)
        await trio.lowlevel.checkpoint()
        log.info("%s", given)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, UUID)
        nursery.start_soon(work, other)
    log.info("outside")
    found = {line["message"]: line.get("correlation_id") for line in lines(tmp_path / "log")}
    assert found == {UUID: UUID, other: other, "outside": None}


@pytest.mark.parametrize("given", [UUID, UUID.upper()])
def test_a_uuid_is_kept(given: str) -> None:
    assert json_log.correlate(given) == UUID
    assert json_log.correlation.get() == UUID


@pytest.mark.parametrize("given", [None, "", "x", UUID + "\n", UUID + "0", f"{{{UUID}}}", UUID.replace("-", ""), "é"])
def test_what_is_no_uuid_is_replaced(given: str | None) -> None:
    found = contextvars.copy_context().run(json_log.correlate, given)
    assert str(uuid.UUID(found)) == found
    assert found != given


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(StorageError, match="the log folder"):
        json_log.to_file("r", tmp_path / "logs/hive.log", MAX)


def test_libraries_that_talk_much_are_quietened(tmp_path: Path) -> None:
    json_log.to_file("r", tmp_path / "log", MAX)
    logging.getLogger("httpx").info("a request")
    logging.getLogger("hypercorn.error").info("a start")
    log.info("ours")
    log.debug("too fine")
    assert [line["message"] for line in lines(tmp_path / "log")] == ["ours"]


def test_stderr_takes_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    json_log.to_stderr("llm-worker-rbee")
    log.info("here")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["role"] == "llm-worker-rbee"


def test_installing_twice_writes_once(tmp_path: Path) -> None:
    json_log.to_file("r", tmp_path / "one", MAX)
    first = logging.getLogger().handlers[0]
    json_log.to_file("r", tmp_path / "two", MAX)
    first.close()
    log.info("once")
    assert not (tmp_path / "one").exists()
    assert len(lines(tmp_path / "two")) == 1
