"""The worker as its hive sees it: a process with a beginning, a callback and an end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
import pytest
import trio

from rbee.adapters.daemon import announce
from rbee.adapters.http import sse_client
from rbee.errors import ConnectionTimeoutError, InvalidConfigurationError, RbeeError, WorkerNotFoundError
from rbee.wire.worker import InferenceRequest
from tests.kit.models import make
from tests.kit.worker_child import KEY, MODEL_REF, ROOT, FakeHive, arguments, events, request, running, start_process

if TYPE_CHECKING:
    from pathlib import Path

ONE_THREAD = ("--threads", "1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes seconds for a few dozen tokens."""
    return make(tmp_path_factory.mktemp("models") / "slow.gguf", width=1536, layers=12, feed_forward=4096, context=8192)


async def test_the_hive_is_told_and_the_key_stays_secret(tiny: Path, tmp_path: Path) -> None:
    async with running(tiny, tmp_path, *ONE_THREAD, loaded=False) as worker:
        (callback,) = worker.hive.callbacks
        assert callback.head.startswith("POST /v1/workers/ready ")
        assert f"Authorization: Bearer {KEY}" in callback.head
        told = msgspec.to_builtins(callback.body)
        assert told == {
            "worker_id": worker.id,
            "url": worker.url,
            "model_ref": MODEL_REF,
            "backend": "cpu",
            "device": 0,
        }
        process = psutil.Process(worker.process.pid)
        assert KEY not in " ".join(process.cmdline())
        assert KEY not in str(process.environ())
        assert [line.action for line in worker.narration] == ["http_ready", "ready_callback"]
        # HTTP answers whatever the model does.
        assert (await worker.ready()).state in ("loading", "idle")
        await worker.wait_loaded()
        assert await worker.text("x") == "yz"
        assert KEY not in worker.log.read_text()


async def test_two_workers_find_ports_of_their_own(tiny: Path, tmp_path: Path) -> None:
    async with running(tiny, tmp_path, *ONE_THREAD) as one, running(tiny, tmp_path, *ONE_THREAD) as other:
        assert one.url != other.url
        assert await one.text("x") == await other.text("x") == "yz"


async def test_more_threads_than_processors_are_cut_down_and_told(tiny: Path, tmp_path: Path) -> None:
    async with running(tiny, tmp_path, "--threads", "1000") as worker:
        with trio.fail_after(20):  # a thousand threads would not finish a step
            assert await worker.text("x") == "yz"
        (told,) = re.findall(r"1000 threads are set, and there are (\d+) processors", worker.log.read_text())
        assert 1 <= int(told) <= len(os.sched_getaffinity(0))


async def test_requests_run_together(tiny: Path, tmp_path: Path) -> None:
    async with running(tiny, tmp_path, *ONE_THREAD, slots=4) as worker:
        found: list[str] = []

        async def generate() -> None:
            found.append(await worker.text("A", max_tokens=200, seed=1, temperature=0.5))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(generate)
        assert len(set(found)) == 1
        assert len(found[0]) == 200


@pytest.mark.parametrize("way", ["signal", "request"])
async def test_an_idle_worker_ends_at_once(tiny: Path, tmp_path: Path, way: str) -> None:
    async with running(tiny, tmp_path, *ONE_THREAD) as worker:
        started = time.monotonic()
        if way == "signal":
            worker.process.terminate()
        else:
            assert (await worker.client.post("/v1/admin/shutdown")).status_code == 202
        with trio.fail_after(10):
            assert await worker.process.wait() == 0
        # A second where the machine is free; a busy one must not fail the test.
        assert time.monotonic() - started < 5
        assert "Traceback" not in worker.log.read_text()


async def test_a_running_request_is_finished_first(slow: Path, tmp_path: Path) -> None:
    async with running(slow, tmp_path, *ONE_THREAD) as worker:
        body = msgspec.convert(request("A", max_tokens=12), InferenceRequest)
        async with sse_client.events(worker.client, "POST", "/v1/inference", body=body) as stream:
            await anext(stream)
            worker.process.terminate()
            data = [msgspec.json.decode(event.data) async for event in stream]
        assert data[-1]["done"] is True
        assert data[-1]["total_tokens"] == 12
        with trio.fail_after(10):
            assert await worker.process.wait() == 0


async def test_a_second_signal_ends_the_wait(slow: Path, tmp_path: Path) -> None:
    async with running(slow, tmp_path, *ONE_THREAD) as worker:
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await worker.infer("a" * 4000, max_tokens=50))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await worker.wait_state("busy")
            worker.process.send_signal(signal.SIGINT)
            await worker.wait_state("draining")
            worker.process.send_signal(signal.SIGINT)
            with trio.fail_after(5):
                assert await worker.process.wait() == 0
        assert events(answers[0].text)[-1]["error"]["code"] == "SHUTTING_DOWN"


async def test_a_signal_while_loading_ends_it(slow: Path, tmp_path: Path) -> None:
    async with running(slow, tmp_path, *ONE_THREAD, loaded=False) as worker:
        worker.process.terminate()
        with trio.fail_after(10):
            assert await worker.process.wait() == 0


async def test_a_client_that_goes_frees_its_slot(slow: Path, tmp_path: Path) -> None:
    async with running(slow, tmp_path, *ONE_THREAD, slots=1) as worker:
        for prompt in ("A", "a" * 4000):
            with trio.move_on_after(1) as patience:
                await worker.infer(prompt, max_tokens=90)
            assert patience.cancelled_caught
            await worker.wait_state("idle", seconds=1)


async def test_what_it_computed_of_a_prompt_survives_its_crash(tiny: Path, tmp_path: Path) -> None:
    def kept() -> int:
        return len(list(tmp_path.glob("prefixes/*/*.part")))

    texts = []
    for known in (0, 192):
        async with running(tiny, tmp_path, *ONE_THREAD) as worker:
            texts.append(await worker.text("a" * 200, max_tokens=2))
            told = (await worker.client.get("/metrics")).text
            assert f"rbee_worker_cached_tokens_total {known}.0" in told
            assert f'rbee_worker_prefix_parts_total{{from="disk"}} {known // 64}.0' in told
            with trio.fail_after(10):
                while kept() < 3:  # noqa: ASYNC110 (another process's files)
                    await trio.sleep(0.02)
            worker.process.kill()
    assert texts[0] == texts[1]


async def test_memory_stays_where_it_is(tiny: Path, tmp_path: Path) -> None:
    async with running(tiny, tmp_path, *ONE_THREAD) as worker:

        async def several(count: int) -> None:
            for _ in range(count):
                async with trio.open_nursery() as nursery:
                    for _ in range(4):
                        nursery.start_soon(worker.text, "A")

        await several(20)
        before = worker.resident_mb()
        await several(50)
        assert worker.resident_mb() - before < 8


async def failed_start(tmp_path: Path, command: list[str], stdin: bytes | None = None) -> tuple[int, RbeeError, str]:
    """Start a worker that must fail; returns its exit code, what it announced, and its log."""
    log = tmp_path / "worker.log"
    if stdin is None:
        process = await start_process(command, log)
    else:
        with log.open("wb") as errors:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT
            )
        assert process.stdin is not None
        with suppress(trio.BrokenResourceError):  # it need not read all of it
            await process.stdin.send_all(stdin)
        await process.stdin.aclose()
    with trio.fail_after(30):
        with pytest.raises(RbeeError) as failure:
            await announce.listen(process, lambda _: None)
        code = await process.wait()
    return code, failure.value, log.read_text()


async def test_a_hive_that_knows_it_not_ends_it(tiny: Path, tmp_path: Path) -> None:
    hive = FakeHive(404)
    async with trio.open_nursery() as nursery:
        await nursery.start(hive.serve)
        code, error, log = await failed_start(tmp_path, arguments(str(uuid.uuid4()), tiny, hive.url))
        nursery.cancel_scope.cancel()
    assert code == 1
    assert isinstance(error, WorkerNotFoundError)
    assert "rbee: there is no such worker" in log
    assert "Traceback" not in log


async def test_a_hive_that_is_gone_ends_it(tiny: Path, tmp_path: Path) -> None:
    code, error, log = await failed_start(tmp_path, arguments(str(uuid.uuid4()), tiny, "http://127.0.0.1:9"))
    assert code == 1
    assert isinstance(error, ConnectionTimeoutError)
    assert len(error.details["attempts"]) == 3
    assert "Traceback" not in log


@pytest.mark.parametrize("stdin", [b"", b"nonsense\n", b'{"key":1}\n', b"\xff\n", b"x" * 100_000])
async def test_without_a_key_it_does_not_start(tiny: Path, tmp_path: Path, stdin: bytes) -> None:
    code, error, log = await failed_start(tmp_path, arguments(str(uuid.uuid4()), tiny, "http://127.0.0.1:9"), stdin)
    assert code == 1
    assert isinstance(error, InvalidConfigurationError)
    assert "Traceback" not in log


def test_wrong_usage_is_exit_code_2() -> None:
    done = subprocess.run([sys.executable, "-m", "rbee", "worker"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 2
