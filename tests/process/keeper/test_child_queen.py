"""How the keeper finds, starts, keeps and stops a queen, against a stand-in for it."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from rbee import __version__
from tests.kit.keeper_driver import TEXT, Keeper, finish, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKER = {
    "worker_id": "w-1", "node": "local", "state": "idle", "model_ref": "builtin:bee-stories", "url": "http://x:8001",
    "backend": "cpu", "device": 0, "slots_total": 4, "slots_available": 4,
}  # fmt: skip


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    keeper = Keeper(tmp_path, port=port)
    yield keeper
    for pid in keeper.running():
        os.kill(pid, signal.SIGKILL)


class _OtherServer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b"<h1>Welcome to nginx</h1>")

    def log_message(self, *_: object) -> None:
        pass


def test_up_keeps_a_queen_until_down(keeper: Keeper) -> None:
    code, out, err = keeper.run("up")
    assert (code, out) == (0, "")
    assert f"http://127.0.0.1:{keeper.port}" in err
    assert "\nModels stay loaded until 5 minutes after their last request; `rbee workers list` shows until when." in err
    (queen,) = keeper.running()

    note = keeper.run("up", "--keep", "2h")[2]
    assert note.endswith(" --keep is for one that is started: `rbee down` first, or `rbee infer --keep`.\n")
    assert keeper.run("up")[::2] == (0, f"A queen is already running at http://127.0.0.1:{keeper.port}.\n")
    code, out, err = keeper.run("infer", "--prompt", "Once")
    assert (code, out) == (0, TEXT + "\n")
    assert "starting" not in err
    assert keeper.running() == [queen]

    code, _, err = keeper.run("down")
    assert (code, err) == (0, f"The queen (pid {queen}) has ended, with everything it started.\n")
    assert keeper.running() == []
    assert keeper.run("down") == (0, "", "No queen is running.\n")


def test_a_queen_on_another_port_is_found_by_its_state_folder(keeper: Keeper) -> None:
    assert keeper.run("up")[0] == 0
    keeper.env["RBEE_QUEEN_PORT"] = "1"
    code, out, err = keeper.run("infer", "--prompt", "Once")
    assert (code, out) == (0, TEXT + "\n")
    assert "starting" not in err
    assert keeper.run("down")[0] == 0


def test_two_keepers_at_once_use_one_queen(keeper: Keeper) -> None:
    first = keeper.start("infer", "--prompt", "Once", token_s=0.5)
    second = keeper.start("infer", "--prompt", "Once", token_s=0.1)
    for process in (first, second):
        with process:
            code, out, err = finish(process)
        assert (code, out) == (0, TEXT + "\n"), err
    assert keeper.running() == []


def test_a_queen_that_ends_is_waited_for_and_replaced(keeper: Keeper) -> None:
    assert keeper.run("up", place=["SHUTTING_DOWN", "the queen takes no new tasks"]).code == 0
    (old,) = keeper.running()
    with keeper.start("infer", "--prompt", "Once") as process:
        wait_for(lambda: any(path == "/v2/tasks" for _, path, _ in keeper.calls()))
        os.kill(old, signal.SIGTERM)
        code, out, err = finish(process)
    assert (code, out) == (0, TEXT + "\n"), err
    assert "The queen is shutting down" in err
    assert keeper.running() == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_queen_that_is_gone_before_the_first_token_is_replaced(keeper: Keeper, moment: str) -> None:
    """Another command's has ended with that: before it has placed the request, or between that and its beginning."""
    assert keeper.run("up", leaves=moment).code == 0
    code, out, err = keeper.run("infer", "--prompt", "Once")
    assert (code, out) == (0, TEXT + "\n"), err
    assert keeper.running() == []


def test_a_queen_that_always_refuses_is_given_up(keeper: Keeper) -> None:
    code, _, err = keeper.run("infer", "--prompt", "Once", place=["SHUTTING_DOWN", "the queen takes no new tasks"])
    assert code == 1
    assert err.endswith("rbee: the queen takes no new tasks\n")
    assert keeper.running() == []


def test_another_server_at_the_port_is_named(keeper: Keeper) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", keeper.port), _OtherServer) as server:
        threading.Thread(target=server.serve_forever).start()
        code, out, err = keeper.run("infer", "--prompt", "Once")
        server.shutdown()
    assert (code, out) == (1, "")
    assert f"port {keeper.port} is taken by a program that is not a queen" in err
    assert "RBEE_QUEEN_PORT" in err
    assert keeper.running() == []


def test_a_port_that_never_answers_is_named(keeper: Keeper) -> None:
    with socket.create_server(("127.0.0.1", keeper.port)):
        code, _, err = keeper.run("status")
    assert code == 1
    assert f"port {keeper.port} is taken" in err


def test_another_interface_is_told_with_both_versions(keeper: Keeper) -> None:
    assert keeper.run("up", version="9.9.9", api_version="v9")[0] == 0
    code, out, err = keeper.run("infer", "--prompt", "Once")
    assert (code, out) == (1, "")
    assert f"\n  rbee-keeper {__version__}\n  queen-rbee  9.9.9\nhint: `rbee down`" in err
    assert keeper.run("down")[0] == 0


def test_a_wrong_token_names_host_and_file(keeper: Keeper) -> None:
    assert keeper.run("up")[0] == 0
    token = keeper.state / "token"
    token.write_text("rbee_wrong\n")
    code, _, err = keeper.run("infer", "--prompt", "Once")
    assert code == 1
    assert f"the queen at 127.0.0.1:{keeper.port} does not accept our token" in err
    assert str(token) in err
    token.unlink()
    code, _, err = keeper.run("workers", "list")
    assert code == 1
    assert f"{token} does not exist" in err


def test_status_and_workers_without_a_queen_start_nothing(keeper: Keeper) -> None:
    code, out, _ = keeper.run("status", "--json")
    assert code == 0
    queen = {"running": False, "url": None, "version": None, "pid": None, "mode": None}
    assert json.loads(out) == {"queen": queen, "nodes": [], "workers": [], "downloads": []}
    assert keeper.run("workers", "list", "--json")[:2] == (0, '{"workers":[],"ended":[],"unreachable":[]}\n')
    assert keeper.run("workers", "list") == (0, "", "No queen is running, so no workers are known.\n")
    assert keeper.run("workers", "health", "--node", "local", "--json")[:2] == (0, '{"nodes":[]}\n')
    code, out, err = keeper.run("workers", "shutdown", "--id", "01234567")
    assert (code, out) == (1, "")
    assert err == "rbee: no queen is running, so no workers are known\nhint: `rbee up` starts one\n"
    none = "No queen is running. `rbee infer` starts one for itself; `rbee up` starts one that stays.\n"
    assert keeper.run("status") == (0, "", none), "stdout is data"
    assert keeper.run("status", "--quiet") == (0, "", "")


def test_status_and_workers_show_what_runs(keeper: Keeper) -> None:
    assert keeper.run("up", workers=[WORKER])[0] == 0
    found = json.loads(keeper.run("status", "--json")[1])
    assert found["queen"]["mode"] == "persistent"
    (node,) = found["nodes"]
    assert list(node) == [
        "node", "status", "reason", "version", "workers", "slots_total", "slots_available", "memory_total",
        "memory_available", "state",
    ]  # fmt: skip
    assert (node["node"], node["status"], node["version"], node["slots_total"]) == ("local", "alive", __version__, 4)
    assert found["workers"] == [WORKER | {"idle_until": None}]
    assert json.loads(keeper.run("workers", "list", "--json")[1]) == {
        "workers": [WORKER | {"idle_until": None}],
        "ended": [],
        "unreachable": [],
    }
    lines = keeper.run("workers", "list")[1].splitlines()
    assert lines[0].split() == ["WORKER", "NODE", "STATE", "MODEL", "DEVICE", "FREE", "SLOTS", "LOADED", "UNTIL", "URL"]
    assert lines[1].split() == [
        "w-1",
        "local",
        "idle",
        "builtin:bee-stories",
        "cpu:0",
        "4",
        "of",
        "4",
        "–",
        "http://x:8001",
    ]
    head, _, heading, row = keeper.run("workers", "health")[1].splitlines()
    assert head == "local: hive alive, 1 worker"
    assert (heading.split(), row.split()) == (["WORKER", "STATE", "READY"], ["w-1", "idle", "yes"])
    queen, _, heading, node, _, _, worker = keeper.run("status")[1].splitlines()
    assert queen.startswith("Queen  http://127.0.0.1")
    assert heading.split() == ["NODE", "HIVE", "WORKERS", "FREE", "SLOTS", "FREE", "MEMORY"]
    assert node.split() == ["local", __version__, "1", "4", "of", "4", "5.1", "GB", "of", "16.0", "GB"]
    assert worker.split() == ["w-1", "local", "idle", "4", "of", "4", "cpu:0", "–", "builtin:bee-stories"]


def test_up_and_down_leave_another_commands_queen_alone(keeper: Keeper) -> None:
    with keeper.start("infer", "--prompt", "Once", hang_after=1) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        code, _, err = keeper.run("down")
        assert code == 0
        assert "runs for another command only" in err
        code, _, err = keeper.run("up")
        assert code == 1
        assert "runs for another command only" in err
        assert json.loads(keeper.run("status", "--json")[1])["queen"]["mode"] == "ephemeral"
        process.send_signal(signal.SIGINT)
        finish(process)
    assert keeper.running() == []


def test_two_ups_at_once_start_one_queen(keeper: Keeper) -> None:
    ups = [keeper.start("up") for _ in range(2)]
    for process in ups:
        with process:
            code, _, err = finish(process)
        assert code == 0, err
    assert len(keeper.running()) == 1
    assert keeper.run("down").code == 0


def test_a_relative_state_folder_is_the_queens_too(keeper: Keeper) -> None:
    keeper.env["RBEE_HOME"] = os.path.relpath(keeper.state)
    keeper.env["RBEE_CONFIG"] = os.path.relpath(keeper.home / "config.toml")
    (keeper.home / "config.toml").write_text("[queen]\n")
    assert keeper.run("infer", "--prompt", "Once")[:2] == (0, TEXT + "\n")
    assert (keeper.state / "token").exists()


def test_a_state_folder_that_cannot_be_is_one_clear_error(keeper: Keeper) -> None:
    keeper.env["RBEE_HOME"] = "/dev/null/state"
    code, _, err = keeper.run("infer", "--prompt", "Once")
    assert code == 1
    assert "the state folder /dev/null/state: Not a directory\nhint: RBEE_HOME" in err


def test_a_queen_that_does_not_come_up_is_ended(keeper: Keeper) -> None:
    keeper.env["RBEE_TIMEOUTS_START"] = "2"
    code, _, err = keeper.run("up", start="hang")
    assert code == 1
    assert "the queen was not ready within 2 s" in err
    assert keeper.running() == []


def test_a_slow_end_is_waited_for(keeper: Keeper) -> None:
    assert keeper.run("up", end_s=2.5)[0] == 0
    begun = time.monotonic()
    code, _, err = keeper.run("down")
    assert code == 0
    assert time.monotonic() - begun > 2.5
    assert "Waiting until running requests have ended." in err
    assert keeper.running() == []


def test_token_prints_the_file_and_makes_it_once(keeper: Keeper) -> None:
    code, out, err = keeper.run("token")
    file = keeper.state / "token"
    assert (code, err) == (0, "")
    assert out.startswith("rbee_")
    assert out == file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert keeper.run("token")[1] == out
