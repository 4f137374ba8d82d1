"""The logs of nodes over HTTP and on the command line: in order, live, bounded, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx_sse
import psutil
import pytest

from rbee.adapters import tokens
from tests.conftest import ROOT
from tests.kit.ports import own_address
from tests.kit.remote_nodes import register, start_hive
from tests.kit.standins import standin
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

SPAWN = {"model_ref": "builtin:bee-stories"}


@contextmanager
def followed(client: httpx.Client, path: str) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Read a stream of lines; gives a function that reads up to the first line whose message has some words in it."""
    with httpx_sse.connect_sse(client, "GET", path) as source:
        assert source.response.status_code == 200
        lines = source.iter_sse()

        def until(words: str) -> dict[str, Any]:
            for event in lines:
                assert event.data != "[DONE]"
                line: dict[str, Any] = json.loads(event.data)
                if words in line["message"]:
                    return line
            raise AssertionError(f"the stream ended without {words}")

        yield until


def lines(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """Read a stream to its end."""
    with httpx_sse.connect_sse(client, "GET", path) as source:
        *events, last = [event.data for event in source.iter_sse()]
    assert last == "[DONE]"
    return [json.loads(event) for event in events]


def write(home: Path, name: str, *messages: str) -> None:
    with (home / "logs" / f"{name}.log").open("a") as log:
        log.writelines(f"{message}\n" for message in messages)


def open_logs(pid: int) -> int:
    return sum(file.path.endswith((".log", ".log.1")) and "r" in file.mode for file in psutil.Process(pid).open_files())


def test_a_hive_gives_its_log_and_those_of_its_workers(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin())
    with hive.client() as client:
        worker = client.post("/v1/workers/spawn", json=SPAWN).json()["worker_id"]
        write(hive.home, f"worker-{worker}", "native words")
        found = lines(client, "/v1/logs")
        assert {line["source"] for line in found} == {"hive", f"worker-{worker}"}
        assert any("the hive" in line["message"] and line["level"] == "info" for line in found)
        own = lines(client, f"/v1/workers/{worker}/log")
        assert {"source": f"worker-{worker}", "message": "native words"} in own
        assert {line["source"] for line in own} == {f"worker-{worker}"}
        assert lines(client, "/v1/logs?lines=0") == []
        assert len(lines(client, "/v1/logs?lines=1")) == 1


def test_what_is_asked_is_checked(daemons: Any) -> None:
    hive = daemons.start("hive")
    with hive.client() as client:
        for query in ("lines=-1", "lines=10001", "lines=x", "follow=maybe", "other=1"):
            answer = client.get(f"/v1/logs?{query}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
        for worker in ("0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01", "..%2fhive", "x"):
            answer = client.get(f"/v1/workers/{worker}/log")
            assert answer.status_code == 404, answer.text


def test_a_follower_sees_workers_start_speak_and_end(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin())
    with hive.client() as client, hive.client() as other, followed(client, "/v1/logs?follow=true") as until:
        until("answers at")
        worker = other.post("/v1/workers/spawn", json=SPAWN).json()["worker_id"]
        assert until(f"worker {worker} started")["source"] == "hive"
        write(hive.home, f"worker-{worker}", "words")
        assert until("words")["source"] == f"worker-{worker}"
        other.delete(f"/v1/workers/{worker}")
        until(f"worker {worker} ended")
        (hive.home / "logs" / f"worker-{worker}.log").unlink()
        write(hive.home, "hive", "still there")
        until("still there")


def test_a_follower_who_leaves_leaves_nothing(daemons: Any) -> None:
    hive = daemons.start("hive")
    pid = hive.process.pid
    with hive.client() as other:
        for _ in range(20):
            with hive.client() as client, followed(client, "/v1/logs?follow=true") as until:
                until("answers at")
                assert open_logs(pid) >= 1
        wait_until(lambda: open_logs(pid) == 0)
        wait_until(lambda: len(psutil.Process(pid).net_connections("tcp")) <= 2)
        threads = psutil.Process(pid).num_threads()
        lines(other, "/v1/logs")
        assert threads <= 5
    hive.signal()
    assert hive.wait() == (0, "")


def test_a_follower_who_reads_no_more_takes_bounded_memory_and_holds_nobody_up(daemons: Any) -> None:
    hive = daemons.start("hive")
    with hive.client() as client:
        before = psutil.Process(hive.process.pid).memory_info().rss
        host, port = client.base_url.host, client.base_url.port
        with socket.create_connection((host, port)) as silent:
            silent.sendall(
                f"GET /v1/logs?follow=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hive.token}\r\n\r\n".encode()
            )
            with followed(client, "/v1/logs?follow=true") as until:
                for _ in range(50):
                    write(hive.home, "hive", *("x" * 1000 for _ in range(1000)))
                write(hive.home, "hive", "the end")
                until("the end")
            assert psutil.Process(hive.process.pid).memory_info().rss - before < 30_000_000
            begun = time.monotonic()
            hive.signal()
            assert hive.wait() == (0, "")
            assert time.monotonic() - begun < 5


def test_a_rotation_is_followed(daemons: Any) -> None:
    hive = daemons.start("hive", RBEE_WORKER_COMMAND=standin(), RBEE_LOGS_MAX_BYTES="10000")
    with hive.client() as client, hive.client() as other, followed(client, "/v1/logs?follow=true") as until:
        until("answers at")
        write(hive.home, "hive", "x" * 9900)
        until("xxx")
        for _ in range(2):
            worker = other.post("/v1/workers/spawn", json=SPAWN).json()["worker_id"]
            until(f"worker {worker} started")
        assert (hive.home / "logs" / "hive.log.1").exists()


# Through the queen.


def test_the_queen_reads_the_logs_of_this_host_also_without_a_hive(daemons: Any) -> None:
    queen = daemons.start("queen")
    write(queen.home, "hive", "of an earlier hive")
    with queen.client() as client, queen.client() as other:
        found = lines(client, "/v2/logs")
        assert {"source": "hive", "message": "of an earlier hive"} in found
        assert [line["source"] for line in found if line["message"].startswith("the queen ")] == ["queen"]
        with followed(other, "/v2/logs?follow=true&node=local") as until:
            until("of an earlier hive")
            hive = daemons.start("hive")
            until(f"answers at {hive.url}")
        answer = client.get("/v2/logs?node=nowhere")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NODE_NOT_FOUND")
        assert client.get("/v2/logs?node=no%20name").status_code == 400


def test_the_queen_passes_on_the_logs_of_another_node(daemons: Any) -> None:
    address = own_address()
    register(daemons.home, ("attic", address))
    tokens.load_or_create(daemons.home / "token")
    hive = start_hive(daemons, "attic", address)
    queen = daemons.start("queen")
    with queen.client() as client, queen.client() as other:
        assert lines(client, "/v2/logs?node=attic")[0]["message"].endswith(f"answers at http://{address}:9200")
        with followed(other, "/v2/logs?follow=true&node=attic") as until:
            until("answers at")
            write(hive.home, "hive", "live \x1b[2J words")
            until("live")
        wait_until(lambda: open_logs(hive.process.pid) == 0)
        with httpx_sse.connect_sse(other, "GET", "/v2/logs?follow=true&node=attic") as source:
            events = source.iter_sse()
            next(events)
            hive.signal(signal.SIGKILL)
            *_, failed, last = (event.data for event in events)
        assert last == "[DONE]"
        error = json.loads(failed)["error"]
        assert (error["code"], error["details"]) == ("CONNECTION_TIMEOUT", {"node": "attic"})
        assert "the hive on attic was lost" in error["message"]
        begun = time.monotonic()
        (failed,) = lines(client, "/v2/logs?node=attic")
        assert failed["error"]["message"].startswith(
            "no hive answers on node attic: no hive runs there (nothing listens at "
        )
        assert time.monotonic() - begun < 4
    queen.signal()
    assert queen.wait() == (0, "")


def test_a_queen_ends_at_once_while_logs_are_followed(daemons: Any) -> None:
    queen = daemons.start("queen")
    write(queen.home, "hive", "words")
    with queen.client() as client, followed(client, "/v2/logs?follow=true") as until:
        until("words")
        begun = time.monotonic()
        queen.signal()
        assert queen.wait() == (0, "")
        assert time.monotonic() - begun < 5


# On the command line.


def command(home: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    environment = os.environ | {"RBEE_HOME": str(home), "RBEE_QUEEN_PORT": "0", "RBEE_HIVE_PORT": "0", "TZ": "UTC"}
    return subprocess.Popen(
        [sys.executable, "-m", "rbee", "logs", *arguments],
        cwd=ROOT,
        env=environment,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
    )


def run(home: Path, *arguments: str) -> tuple[int, str, str]:
    with command(home, *arguments) as process:
        out, err = process.communicate(timeout=50)
    return process.returncode, out.decode(), err.decode()


RECORD = json.dumps({
    "time": "2026-01-02T03:04:05.678Z",
    "level": "warning",
    "role": "rbee-hive",
    "message": "two\nlines \x1b[2J",
    "correlation_id": "abc",
})  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder with the log of a hive that has ended."""
    (tmp_path / "state" / "logs").mkdir(parents=True)
    write(tmp_path / "state", "hive", RECORD)
    write(tmp_path / "state", "worker-0123456789", "native \x07")
    return tmp_path / "state"


def test_without_any_daemon_the_logs_of_this_host_are_shown_and_nothing_is_started(home: Path) -> None:
    code, out, err = run(home)
    assert (code, err) == (0, "")
    assert out == (
        "                         worker-01234567  native \ufffd\n"
        "2026-01-02 03:04:05.678  hive             warning: two\n"
        "                                          lines \ufffd[2J\n"
    )
    assert not (home / "queen.lock").exists()


def test_json_gives_one_object_a_line_with_stable_keys(home: Path) -> None:
    code, out, _ = run(home, "--json", "--lines", "1")
    assert code == 0
    assert json.loads(out) == {
        "node": "local",
        "source": "hive",
        "time": "2026-01-02T03:04:05.678Z",
        "level": "warning",
        "message": "two\nlines \x1b[2J",
        "correlation_id": "abc",
    }


def test_following_goes_on_until_ctrl_c(home: Path) -> None:
    with command(home, "--follow", "--lines", "1") as process:
        assert process.stdout is not None
        assert b"warning: two" in process.stdout.readline()
        assert b"lines" in process.stdout.readline()
        for number in range(3):
            write(home, "hive", f"line {number}")
        assert b"line 2" in next(line for line in process.stdout if b"line 2" in line)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_node_whose_hive_does_not_answer_is_told_with_what_to_do(daemons: Any) -> None:
    address = own_address()
    register(daemons.home, ("attic", address))
    queen = daemons.start("queen")
    code, out, err = run(queen.home, "--node", "attic", "--follow")
    assert (code, out) == (1, "")
    where = f"no hive runs there (nothing listens at {address}:9200); the first request starts it"
    assert err.splitlines() == [
        f"rbee: no hive answers on node attic: {where}",
        'hint: `rbee infer --node attic --prompt "…"` starts it where it does not run, and says why where it cannot',
    ]
    code, out, err = run(queen.home, "--node", "nowhere")
    assert (code, out) == (1, "")
    assert "node nowhere is not in the registry" in err


def test_another_node_is_followed_until_its_queen_ends(daemons: Any) -> None:
    address = own_address()
    register(daemons.home, ("attic", address))
    tokens.load_or_create(daemons.home / "token")
    hive = start_hive(daemons, "attic", address)
    queen = daemons.start("queen")
    with command(queen.home, "--node", "attic", "--follow", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["node"] == "attic"
        write(hive.home, "hive", "live")
        while json.loads(process.stdout.readline())["message"] != "live":
            pass
        queen.signal()
        assert queen.wait() == (0, "")
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith(b"rbee: the connection to the queen was lost while reading the logs")


def test_a_reader_who_has_had_enough_ends_it_quietly(home: Path) -> None:
    with command(home, "--follow") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 20:
            write(home, "hive", "more")
            time.sleep(0.05)
        assert process.returncode == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""
