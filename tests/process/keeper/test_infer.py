"""`rbee infer` as a process, against a stand-in for its peers."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.kit.keeper_driver import TEXT, Keeper, finish, wait_for


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path)


def test_stdout_is_exactly_the_text_and_one_newline(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once")
    assert (code, out) == (0, TEXT + "\n")
    assert err == "Generated 6 tokens with builtin:bee-stories on local\n"
    assert keeper.running() == []


def test_verbose_prints_each_step_and_who_does_it(keeper: Keeper) -> None:
    code, out, err = keeper.run("-v", "infer", "--prompt", "Once")
    assert (code, out) == (0, TEXT + "\n")
    assert "[queen-rbee] Choosing a worker on local\n" in err
    assert "\x1b" not in err


def test_the_first_command_makes_everything_private(keeper: Keeper) -> None:
    assert keeper.run("infer", "--prompt", "Once")[0] == 0
    folders = [keeper.state, *(path for path in keeper.state.rglob("*") if path.is_dir())]
    assert [path for path in folders if path.stat().st_mode & 0o077] == []


def test_quiet_silences_what_is_no_error(keeper: Keeper) -> None:
    assert keeper.run("infer", "--prompt", "Once", "--quiet") == (0, TEXT + "\n", "")


def test_options_reach_queen_and_worker(keeper: Keeper) -> None:
    options = ["--max-tokens", "7", "--temperature", "0.5", "--top-p", "0.9", "--top-k", "5", "--min-p", "0.1"]
    options += ["--seed", "3", "--stop", "x", "--stop", "y", "--raw", "--backend", "cpu", "--device", "0"]
    assert keeper.run("infer", "--prompt", "Once", *options)[0] == 0
    bodies = {path: body for method, path, body in keeper.calls() if method == "POST"}
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 3, "stop": ["x", "y"], "raw": True}
    common = {"prompt": "Once", "max_tokens": 7, **sampling}
    for path in ("/v2/tasks", "/v1/inference"):
        assert {key: bodies[path][key] for key in common} == common
    assert (bodies["/v2/tasks"]["backend"], bodies["/v2/tasks"]["device"]) == ("cpu", 0)
    assert bodies["/v2/tasks"]["model"] == "builtin:bee-stories"
    assert bodies["/v2/tasks"]["request_id"] == bodies["/v1/inference"]["request_id"]


def test_json_is_one_object(keeper: Keeper) -> None:
    code, out, _ = keeper.run("infer", "--prompt", "Once", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["text"] == TEXT
    assert (found["total_tokens"], found["duration_ms"], found["stop_reason"]) == (6, 12.5, "eos")
    assert set(found) == {
        "request_id", "model", "node", "worker_id", "text", "total_tokens", "duration_ms", "stop_reason",
        "context_full", "prompt_tokens", "cached_tokens", "prompt_ms", "first_token_ms", "text_ms",
    }  # fmt: skip


def test_without_a_limit_the_model_ends_its_text(keeper: Keeper) -> None:
    """So a queen or worker of an earlier version, which knows no such wish, applies its own limit."""
    assert keeper.run("infer", "--prompt", "Once")[0] == 0
    assert [body for method, _, body in keeper.calls() if method == "POST" and "max_tokens" in body] == []


FULL = {"tokens": 512, "trained_tokens": 512}
SHORT = {"tokens": 512, "trained_tokens": 2048}
TIMINGS = {"prompt_tokens": 12, "prompt_ms": 100.0, "first_token_ms": 130.0, "text_ms": 50.0}


@pytest.mark.parametrize(
    ("options", "done", "said"),
    [
        ([], {}, " on local"),
        (["--max-tokens", "6"], {"stop_reason": "length"}, " on local; stopped at --max-tokens 6"),
        ([], {"stop_reason": "length", "context": FULL}, "; stopped: the context of 512 tokens is full"),
        (
            ["--max-tokens", "600"],
            {"stop_reason": "length", "context": SHORT},
            "; stopped: the context of 512 tokens is full (`context` under [worker] may be up to 2048)",
        ),
        (["--stop", "the end"], {"stop_reason": "stop"}, ' on local; stopped at --stop "the end"'),
        (["--stop", "\n"], {"stop_reason": "stop"}, ' on local; stopped at --stop "\\n"'),
        (["--stop", "a", "--stop", "b"], {"stop_reason": "stop"}, " on local; stopped at a --stop text"),
        (["--stop", "a"], {"stop_reason": "eos"}, " on local"),
        (
            [],
            {"stop_reason": "length"},
            "; stopped by its worker, which is of an earlier version; --max-tokens N asks for more",
        ),
        (
            [],
            {"timings": TIMINGS},
            " on local; prompt: 12 tokens at 120.0 tokens/s, first token after 0.13 s",
        ),
    ],
)
def test_the_last_line_says_how_fast_it_was_and_what_has_ended_the_text(
    keeper: Keeper, options: list[str], done: dict[str, object], said: str
) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", *options, done=done)
    assert (code, out) == (0, TEXT + "\n")
    last = err.splitlines()[-1]
    speed = " at 100.0 tokens/s" if "timings" in done else ""
    assert last.startswith(f"Generated 6 tokens{speed} with builtin:bee-stories on local")
    assert last.endswith(said)


def test_more_tokens_than_the_context_holds_are_as_many_as_it_holds(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", "--max-tokens", "100000", context=512)
    assert (code, out) == (0, TEXT + "\n")
    assert "--max-tokens 100000 is more than the context holds: 512 tokens, prompt and all\n" in err
    assert [body["max_tokens"] for _, path, body in keeper.calls() if path == "/v1/inference"] == [100_000, 512]


def test_a_slot_that_another_request_has_taken_is_waited_for_in_line(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", busy=2)
    assert (code, out) == (0, TEXT + "\n")
    assert err.count("Another request was faster; waiting for a slot again\n") == 2
    waits = [body["wait_s"] for _, path, body in keeper.calls() if path == "/v2/tasks"]
    assert waits[0] == 600
    assert len(waits) == 3
    assert 600 > waits[1] > waits[2] > 500


def test_waiting_in_line_ends(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", "--wait", "0.05", busy=99)
    assert (code, out) == (1, "")
    assert "rbee: all slots are busy\n" in err
    assert len(posts(keeper)) == 2


def test_piped_prompt_loses_its_last_newline_only(keeper: Keeper) -> None:
    assert keeper.run("infer", data=b"two\nlines\n\n")[0] == 0
    assert next(body for _, path, body in keeper.calls() if path == "/v2/tasks")["prompt"] == "two\nlines\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the prompt is empty"),
        (b"\n", "the prompt is empty"),
        (b"ab\xff", "not valid UTF-8: byte 3 of standard input"),
        (b"ab\0c", "NUL character: character 3 of standard input"),
        (b"x" * 1_000_001, "more than 1,000,000 characters"),
        ("é".encode() * 4_000_000, "more than 1,000,000 characters"),
    ],
)
def test_bad_prompts_are_refused_before_anything_starts(keeper: Keeper, data: bytes, said: str) -> None:
    code, out, err = keeper.run("infer", data=data)
    assert (code, out) == (1, "")
    assert said in err
    assert err.startswith("rbee: ")
    assert not (keeper.state).exists()


def test_a_prompt_option_that_is_not_utf8_is_refused(keeper: Keeper) -> None:
    with keeper.start("infer", "--prompt", b"caf\xe9") as process:
        code, _, err = finish(process)
    assert code == 1
    assert "not valid UTF-8: byte 4 of --prompt" in err
    assert not (keeper.state).exists()


def test_a_bad_model_reference_is_refused_with_the_forms(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "x", "--model", "llama")
    assert (code, out) == (1, "")
    assert "a bare word names no model" in err
    assert "hf:ORG/REPO:VARIANT" in err
    assert err.endswith("`rbee models list` shows the models and aliases that there are\n")
    assert not (keeper.state).exists()


def test_a_default_model_that_is_none_is_told_with_its_file(keeper: Keeper) -> None:
    keeper.env["RBEE_DEFAULTS_MODEL"] = "bee-storys"
    code, out, err = keeper.run("infer", "--prompt", "x")
    assert (code, out) == (1, "")
    assert "`model` under [defaults] (bee-storys, from " in err
    assert "did you mean builtin:bee-stories?" in err
    assert not (keeper.state).exists()


def test_loading_is_waited_for(keeper: Keeper) -> None:
    code, out, _ = keeper.run("infer", "--prompt", "Once", loading=2)
    assert (code, out) == (0, TEXT + "\n")
    assert ("GET", "/v1/loading/progress", None) in keeper.calls()


def test_a_failed_load_is_told(keeper: Keeper) -> None:
    plan = {"load_error": ["MODEL_LOAD_FAILED", "the file is not GGUF"]}
    code, out, err = keeper.run("infer", "--prompt", "Once", **plan)
    assert (code, out) == (1, "")
    assert "rbee: the file is not GGUF\nhint: look at the worker's log:" in err
    assert keeper.running() == []


def test_loading_timeout_says_how_far_it_came(keeper: Keeper) -> None:
    keeper.env["RBEE_TIMEOUTS_LOADING"] = "1"
    code, _, err = keeper.run("infer", "--prompt", "Once", loading=99, stuck=True, layers=3)
    assert code == 1
    assert "rbee: the model was not loaded within 1 s: state loading, 3 of 22 layers" in err
    assert "hint: look at the worker's log:" in err


def test_busy_is_retried_after_1_2_and_4_seconds(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", "--wait", "0", busy=99)
    assert (code, out) == (1, "")
    assert [line[-3:] for line in err.splitlines() if "retrying" in line] == ["1 s", "2 s", "4 s"]
    assert "still busy after 3 retries\nhint: wait for a running request to end, or use another node" in err


def posts(keeper: Keeper) -> list[tuple[str, bool]]:
    return [(path, body.get("relay", False)) for method, path, body in keeper.calls() if method == "POST"]


def test_a_queen_that_relays_is_asked_once(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", handle={"direct": False, "relayed": True})
    assert (code, out) == (0, TEXT + "\n")
    assert "Generated 6 tokens" in err
    assert posts(keeper) == [("/v2/tasks", False)]


def test_a_queen_of_yesterday_is_asked_again_to_relay(keeper: Keeper) -> None:
    """It does not know the preference, and ends its stream with the worker that only it reaches."""
    code, out, _ = keeper.run("infer", "--prompt", "Once", handle={"direct": False})
    assert (code, out) == (0, TEXT + "\n")
    assert posts(keeper) == [("/v2/tasks", False), ("/v2/tasks", True)]


def test_why_the_worker_of_a_broken_stream_ended_is_what_the_queen_says(keeper: Keeper) -> None:
    code, out, err = keeper.run(
        "infer", "--prompt", "Once", "--max-tokens", "20", cut_after=3, failure=["WORKER_FAILED", "it fell: SIGSEGV"]
    )
    assert (code, out) == (1, "Once upon a")
    assert "3 of 20 tokens" in err
    assert "\nit fell: SIGSEGV\n" in err


def test_a_worker_that_was_told_to_end_before_it_spoke_is_replaced(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", cut_after=0, failure=["SHUTTING_DOWN", "told to end"])
    assert (code, out) == (1, "")
    assert "rbee: told to end" in err
    assert len(posts(keeper)) == 2 * 3


def test_a_slot_that_becomes_free_is_taken(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", "--wait", "0", busy=1)
    assert (code, out) == (0, TEXT + "\n")
    assert "retrying in 1 s" in err


def test_a_stream_that_breaks_leaves_its_text(keeper: Keeper) -> None:
    folder = keeper.state / "partial"
    folder.mkdir(parents=True)
    for name, days in (("old.txt", 31), ("young.txt", 29), ("mine.md", 31)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - days * 86_400,) * 2)
    code, out, err = keeper.run("infer", "--prompt", "Once", "--max-tokens", "20", cut_after=3)
    assert (code, out) == (1, "Once upon a")
    assert "rbee: the stream closed unexpectedly" in err
    assert "3 of 20 tokens" in err
    left = {path.name for path in folder.iterdir()}
    assert left > {"young.txt", "mine.md"}, "texts of a month ago are removed, and no other files"
    (name,) = left - {"young.txt", "mine.md"}
    path = folder / name
    assert str(path) in err
    assert path.read_text() == "Once upon a"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_worker_that_shuts_down_in_the_middle_is_not_replaced(keeper: Keeper) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", "--max-tokens", "20", drain_after=3)
    assert (code, out) == (1, "Once upon a")
    assert "rbee: the stream closed unexpectedly (the worker is shutting down), with 3 of 20 tokens" in err


def test_silence_between_tokens_is_bounded(keeper: Keeper) -> None:
    keeper.env["RBEE_TIMEOUTS_TOKEN"] = "0.5"
    code, out, err = keeper.run("infer", "--prompt", "Once", "--max-tokens", "20", hang_after=2)
    assert (code, out) == (1, "Once upon")
    assert "2 of 20 tokens" in err
    assert any(method == "DELETE" for method, _, _ in keeper.calls())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_generating_stops_the_worker(keeper: Keeper, number: int) -> None:
    with keeper.start("infer", "--prompt", "Once", hang_after=2) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) != b""
        process.send_signal(number)
        code, _, err = finish(process)
    assert code == 128 + number
    assert err.endswith("Cancelled.\n")
    posted = next(body["request_id"] for _, path, body in keeper.calls() if path == "/v1/inference")
    assert ("DELETE", f"/v1/inference/{posted}", None) in keeper.calls()
    assert keeper.running() == []


def test_ctrl_c_while_placing_gives_the_task_up(keeper: Keeper) -> None:
    with keeper.start("infer", "--prompt", "Once", place="hang") as process:
        wait_for(lambda: any(path == "/v2/tasks" for _, path, _ in keeper.calls()))
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
    assert code == 130
    assert err.endswith("Cancelled.\n")
    assert any(method == "DELETE" and path.startswith("/v2/tasks/") for method, path, _ in keeper.calls())
    assert keeper.running() == []


def test_ctrl_c_while_the_queen_starts_leaves_nothing(keeper: Keeper) -> None:
    with keeper.start("infer", "--prompt", "Once", start="hang") as process:
        wait_for(keeper.has_queen)
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
    assert code == 130, err
    assert "Traceback" not in err
    assert keeper.running() == []


def test_a_second_ctrl_c_ends_a_slow_queen(keeper: Keeper) -> None:
    with keeper.start("infer", "--prompt", "Once", hang_after=1, end_s=60) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 100)
        process.send_signal(signal.SIGINT)
        wait_for(lambda: ("WAIT", "a second request to end", None) in keeper.calls())
        process.send_signal(signal.SIGINT)
        finish(process)
    assert process.returncode == 130
    assert keeper.running() == []


def test_a_killed_keeper_leaves_nothing(keeper: Keeper) -> None:
    with keeper.start("infer", "--prompt", "Once", hang_after=1, drain_s=0.5) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 100)
        process.kill()
        finish(process)
    wait_for(lambda: keeper.running() == [])


def test_a_reader_that_leaves_ends_it_quietly(keeper: Keeper) -> None:
    with keeper.start("infer", "--prompt", "Once", tokens=["x"] * 500, token_s=0.02) as process:
        assert process.stdout is not None
        process.stdout.read(3)
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read().decode()
    assert process.returncode == 141
    assert "rbee:" not in err
    assert "Traceback" not in err
    assert any(method == "DELETE" for method, _, _ in keeper.calls())
    assert keeper.running() == []


def test_a_full_disk_is_one_clear_line(keeper: Keeper) -> None:
    with Path("/dev/full").open("wb") as full, keeper.start("infer", "--prompt", "Once", stdout=full) as process:
        code, _, err = finish(process)
    assert code == 1
    assert "rbee: standard output cannot be written: No space left on device" in err


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"start": "die"}, "the queen ended before it was ready: exit code 3\n  the stand-in dies as it was told"),
        ({"start": ["PORT_IN_USE", "port 8080 is taken"]}, "port 8080 is taken"),
        ({"place": ["NODE_NOT_FOUND", "node moon is not in the registry"]}, "node moon is not in the registry"),
        ({"place": "cut"}, "the queen ended before the request was placed"),
        ({"refuse": ["INVALID_API_KEY", "no"]}, "does not accept the key"),
    ],
)
def test_failures_are_told_once_and_leave_nothing(keeper: Keeper, plan: dict[str, object], said: str) -> None:
    code, out, err = keeper.run("infer", "--prompt", "Once", **plan)
    assert (code, out) == (1, "")
    assert err.count(f"rbee: {said}" if "\n" in said else said) == 1
    assert "Traceback" not in err
    assert keeper.running() == []


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_narration_cannot_draw_on_the_terminal(keeper: Keeper, verbose: list[str]) -> None:
    narration = {"narration": {"action": "odd", "human": "\x1b[2Jhello\n\x9brbee: done\u202e"}}
    _, _, err = keeper.run("infer", *verbose, "--prompt", "Once", **narration)
    assert "\x1b" not in err
    assert "\x9b" not in err
    assert "\u202e" not in err
    assert "\ufffd[2Jhello \ufffdrbee: done" in err


def test_debug_shows_where_an_error_comes_from(keeper: Keeper) -> None:
    plan = {"place": ["NODE_NOT_FOUND", "node moon is not in the registry"]}
    _, _, err = keeper.run("infer", "--prompt", "Once", "--debug", **plan)
    assert "Traceback" in err
    assert err.rstrip().endswith("rbee: node moon is not in the registry")
