"""Steps about models of the hub: fetched, told, remembered, removed."""

from __future__ import annotations

import json
import re
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from pytest_bdd import given, parsers, then, when

from features.lab.terminal import run_on_terminal
from features.steps.streams import events
from tests.kit import models, tinyllama
from tests.kit.hub import Fault, Hub
from tests.kit.hub_cache import store
from tests.kit.ports import hold_port
from tests.kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from features.lab.machine import Machine
    from features.lab.seen import Seen

REPOSITORY = tinyllama.REPOSITORY
M = f"hf:{REPOSITORY}"
STEM = f"{tinyllama.STEM}.Q4_K_M"
TOKEN = "hf_stand_in"
FORTY = 0.405


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of M by their quantisation."""
    return tinyllama.make(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def small_model(llamas: dict[str, Path]) -> Path:
    """The file that M stands for where no quantisation is asked for."""
    return llamas["Q4_K_M"]


@pytest.fixture
def hub(llamas: dict[str, Path], machine: Machine) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPOSITORY, *llamas.values())
        machine.env |= {"HF_ENDPOINT": hub.url, "RBEE_HUB_PRIVATE_REDIRECTS": "true"}
        yield hub


@given("the hub holds M")
def _holds(hub: Hub) -> None:
    pass


@given("a hive runs")
def _hive(machine: Machine) -> None:
    machine.start_hive()


@given("the hub holds M for users with a token")
def _private(hub: Hub) -> None:
    hub.protect(REPOSITORY, TOKEN)


@given(parsers.re("the hub holds M, and sends it in (?P<words>a second|three seconds)"))
def _slow(hub: Hub, small_model: Path, words: str) -> None:
    hub.fault = Fault(rate=small_model.stat().st_size / (1 if words == "a second" else 3))


@given("the hub holds M, and resets every connection at 40 %")
def _resets(hub: Hub) -> None:
    hub.fault = Fault(reset=FORTY)


@given("the hub holds M, and resets the first connection at 40 %")
def _resets_once(hub: Hub) -> None:
    hub.then(Fault(reset=FORTY))


@given("the hub holds M, and resets the first connection at 40 % after a second")
def _resets_later(hub: Hub, small_model: Path) -> None:
    rate = small_model.stat().st_size * FORTY
    hub.then(Fault(reset=FORTY, rate=rate))
    hub.fault = Fault(rate=rate)


@given("the hub cannot be reached")
def _no_hub(machine: Machine) -> None:
    machine.env["HF_ENDPOINT"] = f"http://127.0.0.1:{hold_port()}"


@given("the user's Hugging Face cache has M")
def _cached(machine: Machine, small_model: Path) -> None:
    store(machine.home / ".cache/huggingface/hub", REPOSITORY, small_model.name, small_model.read_bytes())


@given("the user has run infer with M")
def _has_run(machine: Machine, seen: Seen, hub: Hub) -> None:
    _infer(machine, seen)
    assert seen.done.returncode == 0, seen.done.stderr.decode()
    seen.asked = len(hub.asked)


@given("the worker has been shut down")
@when("the worker has been shut down")
def _shut_down(machine: Machine) -> None:
    (row,) = machine.workers()
    with machine.hive() as hive:
        assert hive.delete(f"/v1/workers/{row['id']}").status_code == 202
    wait_until(lambda: machine.workers() == [])


@when("the user runs infer with M and 20 tokens")
def _infer(machine: Machine, seen: Seen) -> None:
    seen.done = machine.run("infer", "--model", M, "--prompt", "A", "--max-tokens", "20", "--temperature", "0")


@when("the user has the token and runs infer with M")
def _infer_with_token(machine: Machine, seen: Seen) -> None:
    machine.env["HF_TOKEN"] = TOKEN
    _infer(machine, seen)


@when("the user pulls M on a terminal")
def _pull(machine: Machine, seen: Seen) -> None:
    seen.done = shown = run_on_terminal(machine, "models", "pull", M)
    seen.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.text)


@when("a client has the hive download M and follows the progress")
def _download(machine: Machine, seen: Seen) -> None:
    with machine.hive() as hive:
        download_id = hive.post("/v1/models/download", json={"model_ref": M}).json()["download_id"]
        with hive.stream("GET", "/v1/models/download/progress", params={"id": download_id}) as answer:
            seen.events = list(events(answer))


@when("a client has the hive download M, and asks it for a worker with M")
def _download_for_worker(machine: Machine, seen: Seen) -> None:
    """Both are of one download; what it came to is told to who asks later, too."""
    with machine.hive() as hive:
        download_id = hive.post("/v1/models/download", json={"model_ref": M}).json()["download_id"]
        seen.answer = hive.post("/v1/workers/spawn", json={"model_ref": M})
        with hive.stream("GET", "/v1/models/download/progress", params={"id": download_id}) as answer:
            seen.events = list(events(answer))


@then("the answer and the download's last event say after 6 attempts, at 40 %, and why")
def _failed_so(seen: Seen) -> None:
    error, told = seen.answer.json()["error"], json.loads(seen.events[-2])
    assert told == {"stage": "error", "code": "DOWNLOAD_FAILED", "message": error["message"]}
    assert seen.events[-1] == "[DONE]"
    assert re.search(r"the connection to 127\.0\.0\.2:\d+ was lost, after 6 attempts, at 40 %$", error["message"])
    assert (error["details"]["attempts"], error["details"]["percent"]) == (6, 40)


@when("two users pull M and one of them presses Ctrl+C")
def _two(machine: Machine, seen: Seen, hub: Hub) -> None:
    pulls = [machine.start("models", "pull", M) for _ in range(2)]
    wait_until(lambda: hub.sent)
    wait_until(lambda: _streams(machine) >= 2)
    pulls[0].send_signal(signal.SIGINT)
    seen.codes = [pull.wait(30) for pull in pulls]


def _streams(machine: Machine) -> int:
    """Return how many requests the hive answers, beside the queen's stream of events."""
    import psutil

    found = 0
    for pid, words in machine.processes().items():
        if "hive" in words:
            connections = psutil.Process(pid).net_connections("tcp")
            found += sum(one.laddr.port == machine.hive_port and one.status == "ESTABLISHED" for one in connections)
    return found - 1  # the queen's event stream


@then("that one exits with 130 and the other with 0")
def _codes(seen: Seen) -> None:
    assert seen.codes == [130, 0]


@then("stdout holds the 20 tokens that M gives")
def _tokens(seen: Seen) -> None:
    assert seen.done.stdout.decode() == tinyllama.ANSWER[:20] + "\n"


@then("stderr names hive, download, check, worker, ready callback and loading, in this order")
def _told(seen: Seen) -> None:
    text = seen.done.stderr.decode()
    told = ["Starting the hive", "Downloading hf:", "Downloaded hf:", " MB of free RAM", "Starting a worker"]
    told += ["The worker has called back", "oaded"]
    places = [text.find(words) for words in told[:-1]] + [text.rfind(told[-1])]
    assert -1 not in places, text
    assert places == sorted(places), text


def _row(machine: Machine) -> dict[str, Any]:
    with machine.hive() as hive:
        (row,) = hive.get("/v1/models/list").json()["models"]
    found: dict[str, Any] = row
    return found


@then("the catalogue has one row for M")
def _has_row(machine: Machine, small_model: Path) -> None:
    row = _row(machine)
    assert (row["id"], row["provider"], row["reference"]) == (STEM, "hf", REPOSITORY)
    assert row["size_bytes"] == small_model.stat().st_size


@then("the worker is idle, and runs the file that the row names")
def _runs_it(machine: Machine) -> None:
    worker = machine.wait_for_worker("idle")
    (words,) = machine.worker_processes().values()
    assert words[words.index("--model-path") + 1] == _row(machine)["local_path"]
    assert worker["model_ref"] == M


@then("no process asked the hub for more than M once")
def _asked_once(hub: Hub) -> None:
    assert [asked.path.partition("?")[0].split("/")[1] for asked in hub.asked] == ["api", "TheBloke", "blobs"]


@then("the hub was not asked again")
def _not_again(seen: Seen, hub: Hub) -> None:
    assert len(hub.asked) == seen.asked


@then("the bytes rise to the total, with a speed, and then the file is complete with its path")
def _progress(machine: Machine, seen: Seen, small_model: Path) -> None:
    told = [json.loads(data) for data in seen.events[:-1]]
    steps = [event for event in told if event["stage"] == "downloading"]
    sizes = [event["bytes_downloaded"] for event in steps]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3
    assert {event["bytes_total"] for event in steps} == {sizes[-1]} == {small_model.stat().st_size}
    assert any(event["speed_mbps"] > 0 for event in steps)
    assert told[-1] == {"stage": "complete", "local_path": _row(machine)["local_path"]}


@then("the stream has ended in order")
def _ended(seen: Seen) -> None:
    assert seen.events[-1] == "[DONE]"


def _percents(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"(\d+) %", text)]


@then("the bar has shown percent and MB/s, and never went back")
def _bar(seen: Seen) -> None:
    percents = _percents(seen.text)
    assert len(set(percents)) > 3, seen.text
    assert percents == sorted(percents)
    assert re.search(r"\d+ %  .* of .*  \d+\.\d MB/s", seen.text)


@then("the hub was asked 6 times, each time for what was missing, with delays that double from 100 ms")
def _six(hub: Hub, small_model: Path) -> None:
    asked = hub.content()
    assert len(asked) == 6
    at = int(small_model.stat().st_size * FORTY)
    assert [one.headers.get("Range") for one in asked] == [None, *[f"bytes={at}-"] * 5]
    gaps = [later.at - one.at for one, later in pairwise(asked)]
    for gap, delay in zip(gaps, (0.1, 0.2, 0.4, 0.8, 1.6), strict=True):
        assert delay <= gap < delay + 1, gaps


@then("no process is left")
def _none_left(machine: Machine) -> None:
    wait_until(lambda: not machine.processes(), seconds=5)


@then("the hub has sent as many bytes as M has")
def _sent(hub: Hub, small_model: Path) -> None:
    assert hub.sent == small_model.stat().st_size


@then("models list names it with id, provider, reference without prefix, path, size and time")
def _list(machine: Machine, small_model: Path) -> None:
    done = machine.run("models", "list", "--json")
    (node,) = json.loads(done.stdout)["nodes"]
    (row,) = node["models"]
    assert (node["node"], row["id"], row["provider"], row["reference"]) == ("local", STEM, "hf", REPOSITORY)
    assert row["local_path"] == str(machine.home / ".local/share/rbee/models/hf" / REPOSITORY / f"{STEM}.gguf")
    assert row["size_bytes"] == small_model.stat().st_size
    assert time.time() - 60 < row["downloaded_at_unix"] <= row["last_used_unix"] <= time.time()
    text = machine.run("models", "list").stdout.decode()
    assert STEM in text
    assert M in text


@then(
    parsers.parse(
        'the bar was at 40 %, then came the error with "attempt 2/6 in 100 ms", and the bar went on from 40 %'
    )
)
def _goes_on(seen: Seen) -> None:
    before, error, after = seen.text.partition("attempt 2/6 in 100 ms")
    assert error, seen.text
    assert "was lost; " in before.splitlines()[-1]
    assert _percents(before)[-1] == 40
    assert _percents(after)[0] == 40
    assert _percents(after)[-1] == 100


@then("attempts 2 to 6 were shown with their delays, and then the end of it")
def _all_shown(seen: Seen) -> None:
    found = re.findall(r"attempt (\d)/6 in (\d+) ms", seen.text)
    assert found == [("2", "100"), ("3", "200"), ("4", "400"), ("5", "800"), ("6", "1600")]
    assert re.search(r"rbee: node local: .* could not be fetched: .* after 6 attempts, at 40 %", seen.text)


@then("the token went to the hub alone")
def _alone(hub: Hub) -> None:
    assert any(TOKEN in str(asked.headers) for asked in hub.asked if asked.host == "hub")
    assert not any(TOKEN in str(asked.headers) for asked in hub.asked if asked.host == "cdn")


@then("models show names architecture, quantisation, context, vocabulary, end token and layers")
def _show(machine: Machine) -> None:
    text = machine.run("models", "show", M).stdout.decode()
    for name, value in {
        "architecture": "llama",
        "quantisation": "Q4_K_M",
        "context": f"{tinyllama.CONTEXT} tokens",
        "vocabulary": "32000 tokens",
        "end token": str(models.END),
        "layers": str(tinyllama.LAYERS),
    }.items():
        assert re.search(rf"^  {name} +{value}$", text, re.MULTILINE), text


@then("models rm refuses while the worker has it")
def _rm_refuses(machine: Machine) -> None:
    for name in (
        STEM,
        M,
        f"hf:{REPOSITORY}",
        str(machine.home / f".local/share/rbee/models/hf/{REPOSITORY}/{STEM}.gguf"),
    ):
        done = machine.run("models", "rm", name)
        assert done.returncode == 1
        assert f"model {STEM} is in use by worker" in done.stderr.decode()
    done = machine.run("models", "rm", "/nowhere/bee.gguf")
    assert done.returncode == 1
    assert "file:/nowhere/bee.gguf is no model of local" in done.stderr.decode()


@then("models rm removes it and its file")
def _rm(machine: Machine) -> None:
    path = machine.home / ".local/share/rbee/models/hf" / REPOSITORY / f"{STEM}.gguf"
    assert path.exists()
    done = machine.run("models", "rm", STEM)
    assert done.returncode == 0, done.stderr.decode()
    assert not path.exists()
    assert json.loads(machine.run("models", "list", "--json").stdout)["nodes"][0]["models"] == []
