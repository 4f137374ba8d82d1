"""Steps about what goes wrong with a request, and what the user sees of it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from typing import TYPE_CHECKING

import httpx
from pytest_bdd import given, parsers, then, when

from features.lab.machine import letters
from features.lab.terminal import run_on_terminal
from features.steps.nodes import NAME
from features.steps.streams import events
from tests.kit.local_http import LOCAL
from tests.kit.models import make as make_chain
from tests.kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from features.lab.machine import Machine
    from features.lab.seen import Seen

ALPHABET = "BCDEFGHIJKLMNOPQRSTUVWXYZA"
"""What the model that writes without end says after an A, again and again."""
ENDLESS = ("--prompt", "A", "--temperature", "0", "--max-tokens", "16000")


@given(parsers.parse("workers with {slots:d} slot"))
@given(parsers.parse("workers with {slots:d} slots"))
def _slots(machine: Machine, slots: int) -> None:
    machine.env["RBEE_WORKER_SLOTS"] = str(slots)


@given("a worker that never ends loading its model")
def _never_loads(machine: Machine) -> None:
    machine.stand_in("loading")


@given("models may load for 1 second")
def _loading_limit(machine: Machine) -> None:
    machine.env["RBEE_TIMEOUTS_LOADING"] = "1"


@given("inferences may take 3 seconds")
def _inference_limit(machine: Machine) -> None:
    machine.env["RBEE_TIMEOUTS_INFERENCE"] = "3"


@given("a model that writes without end")
def _endless_model(machine: Machine, tmp_path: Path, seen: Seen) -> None:
    """A model that says the alphabet for ever, about as fast as one can read it."""
    machine.env["RBEE_WORKER_CONTEXT"] = "16384"
    # Two compute threads wait for each other at each operation. Beside busy programs the first steps then took all of
    # the 3 s that an inference may last (1 to 73 tokens at a load of 10), where one thread wrote 128 to 165.
    machine.env["RBEE_WORKER_THREADS"] = "1"
    path = make_chain(tmp_path / "endless.gguf", layers=8, feed_forward=2048, context=16384)
    seen.model = f"file:{path}"


@given("someone else's infer writes with that model")
def _occupied(machine: Machine, seen: Seen) -> None:
    seen.other = machine.start("infer", "--model", seen.model, *ENDLESS)
    assert letters(seen.other, 1) == "B"


@when("a client asks the queen for a task with that model")
def _task(machine: Machine, seen: Seen) -> None:
    with machine.queen() as queen:
        seen.task = queen.post("/v2/tasks", json={"prompt": "A", "model": seen.model}).json()


@when("a client asks the queen for a task there")
def _task_there(machine: Machine, seen: Seen) -> None:
    with machine.queen() as queen:
        seen.answer = queen.post("/v2/tasks", json={"prompt": "A", "node": NAME})


@when(parsers.parse("a client asks the queen for a task with backend {backend}"))
def _task_on(machine: Machine, seen: Seen, backend: str) -> None:
    with machine.queen() as queen:
        seen.answer = queen.post("/v2/tasks", json={"prompt": "A", "backend": backend})


@then(parsers.parse("it is answered with {status:d} and {code}"))
def _code(seen: Seen, status: int, code: str) -> None:
    assert (seen.answer.status_code, seen.answer.json()["error"]["code"]) == (status, code)


@when("a client has the queen relay a request")
def _relayed(machine: Machine, seen: Seen) -> None:
    asked = {"prompt": "A", "relay": True}
    accept = {"Accept": "text/event-stream"}
    with machine.queen() as queen, queen.stream("POST", "/v2/tasks", json=asked, headers=accept) as answer:
        seen.events = events(answer)


@then(parsers.parse("the stream ends with the error {code} and state loading"))
def _error_event(seen: Seen, code: str) -> None:
    error = json.loads(seen.events[-2])["error"]
    assert (error["code"], seen.events[-1]) == (code, "[DONE]")
    assert "state loading" in error["message"]


@then("the task names the busy worker, and no other was started")
def _busy_worker(machine: Machine, seen: Seen) -> None:
    (row,) = machine.workers()
    assert (seen.task["worker_id"], seen.task["state"]) == (row["id"], "busy")
    assert set(machine.worker_processes()) == {row["pid"]}


@then("the worker answers the request with 503, ALL_SLOTS_BUSY and 1 of 1 slots busy")
def _refused(machine: Machine, seen: Seen) -> None:
    with machine.client(seen.task["worker_url"], seen.task["api_key"]) as worker:
        answer = worker.post("/v1/inference", json={"prompt": "A"})
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert (error["code"], error["slots_total"], error["slots_busy"]) == ("ALL_SLOTS_BUSY", 1, 1)
    assert error["message"]


@when(parsers.re(r"the user runs infer with that model( and (?P<options>--wait \d+))?"))
def _infer(machine: Machine, seen: Seen, options: str | None) -> None:
    """Run it, and note when each line of stderr comes."""
    child = machine.start("infer", "--model", seen.model, *ENDLESS, *(options or "").split())
    assert child.stderr is not None
    seen.lines = [(time.monotonic(), line.decode().rstrip("\n")) for line in child.stderr]
    stdout, _ = child.communicate(timeout=PATIENCE)
    stderr = "\n".join(line for _, line in seen.lines)
    seen.done = subprocess.CompletedProcess(child.args, child.returncode, stdout, stderr.encode())


@when("the user runs infer with that model and --wait 0 on a terminal")
def _infer_on_terminal(machine: Machine, seen: Seen) -> None:
    seen.done = run_on_terminal(machine, "infer", "--model", seen.model, *ENDLESS, "--wait", "0")


@then("its retries came after 1, 2 and 4 seconds")
def _retries(seen: Seen) -> None:
    announced = [
        (when, int(found[1])) for when, line in seen.lines if (found := re.search(r"retrying in (\d+) s", line))
    ]
    assert [delay for _, delay in announced] == [1, 2, 4]
    given_up = next(when for when, line in seen.lines if line.startswith("rbee:"))
    times = [*(when for when, _ in announced), given_up]
    for (began, delay), ended in zip(announced, times[1:], strict=True):
        assert delay - 0.1 < ended - began < delay + 3


@then("stdout is empty")
def _no_text(seen: Seen) -> None:
    assert seen.done.stdout == b""


@then(parsers.parse("the worker refused {count:d} requests"))
def _refusals(machine: Machine, seen: Seen, count: int) -> None:
    _task(machine, seen)
    with machine.client(seen.task["worker_url"], seen.task["api_key"]) as worker:
        assert f'rbee_worker_requests_total{{outcome="all_slots_busy"}} {count}.0' in worker.get("/metrics").text


@then("someone else's infer still writes")
def _goes_on(seen: Seen) -> None:
    assert seen.other.poll() is None
    letters(seen.other, 30)


@then("the terminal showed in this order")
def _in_order(seen: Seen, datatable: list[list[str]]) -> None:
    places = [seen.done.text.find(words) for (words,) in datatable]
    assert -1 not in places, seen.done.text
    assert places == sorted(places)


@then("stderr names the limit of 1 s, the state loading, and 3 of 8 layers")
def _loading_words(seen: Seen) -> None:
    text = seen.done.stderr.decode()
    line = next(line for line in text.splitlines() if line.startswith("rbee: "))
    for words in (r"\b1 s\b", r"\bloading\b", r"\b3 of 8\b"):
        assert re.search(words, line), line


@then("stderr names the worker's log")
def _names_log(machine: Machine, seen: Seen) -> None:
    found = re.search(r"(/\S+/worker-[0-9a-f-]{36}\.log)", seen.done.stderr.decode())
    assert found, seen.done.stderr.decode()
    assert found[1] in {str(path) for path in (machine.state / "logs").iterdir()}


@then("the worker is gone and the hive stays")
def _only_hive(machine: Machine) -> None:
    wait_until(lambda: not machine.worker_processes())
    assert machine.workers() == []


@when("clients with another key ask queen, hive and worker")
def _wrong_key(machine: Machine, seen: Seen) -> None:
    places = {
        f"http://127.0.0.1:{machine.queen_port}": "/v2/workers/list",
        f"http://127.0.0.1:{machine.hive_port}": "/v1/workers/list",
        seen.task["worker_url"]: "/v1/events",
    }
    key = {"Authorization": "Bearer rbee_" + "x" * 43}
    seen.answers = [httpx.get(url + path, headers=key, **LOCAL) for url, path in places.items()]


@then("each answers 401 with INVALID_API_KEY and says how to authenticate")
def _unauthorised(seen: Seen) -> None:
    assert len(seen.answers) == 3
    for answer in seen.answers:
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "INVALID_API_KEY"


@when("the user runs infer with another token file")
def _other_token(machine: Machine, tmp_path: Path, seen: Seen) -> None:
    seen.token_file = tmp_path / "other-token"
    seen.token_file.write_text("rbee_" + "x" * 43 + "\n")
    seen.token_file.chmod(0o600)
    with_token = machine.env | {"RBEE_AUTH_TOKEN_FILE": str(seen.token_file)}
    before, machine.env = machine.env, with_token
    seen.done = machine.run("infer", "--prompt", "Hello")
    machine.env = before


@then("stderr names the queen's host and that token file")
def _names_host(machine: Machine, seen: Seen) -> None:
    text = seen.done.stderr.decode()
    assert f"rbee: authentication failed: the queen at 127.0.0.1:{machine.queen_port} " in text
    assert str(seen.token_file) in text.partition("hint: ")[2]


@then("stderr says after how many seconds and tokens it was given up")
def _given_up(seen: Seen) -> None:
    text = seen.done.stderr.decode()
    found = re.search(r"^rbee: .*\b3 s\b.*?(\d+)(?: of 16000)? tokens", text, re.MULTILINE)
    assert found, text
    assert int(found[1]) > 0


@then("stdout holds the text that had come")
def _partial(seen: Seen) -> None:
    text = seen.done.stdout.decode()
    assert len(text) > 1
    assert (ALPHABET * 1000).startswith(text)
