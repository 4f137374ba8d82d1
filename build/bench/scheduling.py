"""Measures whether a node's warm workers are given out, and give-ups noticed, while its hive is being started over SSH.

python3 build/bench/scheduling.py [TREE]        TREE is the checkout to measure; this one if left out

The queen is a real one. The node's hive is a stand-in, whose event stream shows a warm worker and one without a free
slot. Once it does not say that it is there, so the queen starts it over SSH, where nobody says a word for 30 s.
"""

import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "build")]

import environment  # noqa: E402

environment.enter()

import nodes_standin  # noqa: E402

from rbee import __version__  # noqa: E402
from rbee.adapters import tokens  # noqa: E402
from tests.kit.ports import hold_port, own_address  # noqa: E402
from tests.kit.remote_nodes import register  # noqa: E402

SSH_SECONDS = 30
REQUESTS = 50
BOUND = 20.0
TOKEN = "rbee_" + "0" * 43
WARM, FULL, COLD = "builtin:bee-stories", "hf:bees/full", "hf:bees/cold"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" + 11 * "IOiM"
IDLE = nodes_standin.WORKER | {"url": "http://127.0.0.1:1"}
ROWS = [IDLE, IDLE | {"id": str(uuid.UUID(int=1)), "model_ref": FULL, "state": "busy", "slots_available": 0}]


def main() -> int:
    """Print the table; returns 1 when a bound is missed."""
    tree = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    with contextlib.ExitStack() as stack:
        hive = stack.enter_context(standin())
        url = stack.enter_context(queen(tree, hive))
        hive.is_followed.wait(20)
        time.sleep(0.5)
        Client(url).place(WARM)  # the first request of a process takes longer
        in_line = str(uuid.uuid4())
        waiting = Client(url)
        waiting.wait_in_line(in_line)
        hive.is_mute = True
        start = threading.Thread(target=Client(url).place, args=(COLD,))
        start.start()
        assert hive.is_dialled.wait(10)
        hive.is_mute = False
        left: list[float] = []
        all_asked = threading.Event()
        leaver = threading.Thread(target=lambda: left.extend(given_up(url, in_line, all_asked)))
        leaver.start()
        asked = warm(url)
        assert start.is_alive() or max(asked) > BOUND, "the hive's start has ended too early"
        all_asked.set()
        leaver.join()
        start.join()
    rows = [("a warm worker of the node", asked), ("a place in the line that one gave up", left)]
    print(f"{'while its hive is started over SSH':<40} {'requests':>8} {'median':>12} {'longest':>12} {'bound':>8}")
    is_kept = True
    for name, found in rows:
        median, most = 1000 * statistics.median(found), 1000 * max(found)
        is_kept = is_kept and most <= BOUND
        verdict = "ok" if most <= BOUND else "MISSED"
        print(f"{name:<40} {len(found):>8} {median:>9.1f} ms {most:>9.1f} ms {BOUND:>5.0f} ms {verdict}")
    return 0 if is_kept else 1


class Standin:
    """A hive at a loopback address of its own, and an SSH server there that never says a word."""

    def __init__(self) -> None:
        self.address = own_address()
        self.is_followed = threading.Event()
        self.is_dialled = threading.Event()
        self.is_mute = False
        self.ssh = socket.create_server((self.address, 0))


@contextlib.contextmanager
def standin() -> Iterator[Standin]:
    """Have the node."""
    hive = Standin()
    bodies = nodes_standin.answers(__version__, tokens.swarm_id(TOKEN), hive.address)
    bodies["/v1/workers/list"] = json.dumps({"workers": ROWS}).encode()

    class Hive(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = bodies["/v1/workers/list" if self.path == "/v1/events" else self.path]
            if self.path == "/v1/health" and hive.is_mute:
                self.rfile.read()  # until the queen has had enough
                self.close_connection = True
                return
            self.send_response(200)
            if self.path == "/v1/events":
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b"event: state\ndata: " + body + b"\n\n")
                hive.is_followed.set()
                with contextlib.suppress(OSError):
                    while not time.sleep(5):
                        self.wfile.write(b": still there\n\n")
                return
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    def be_silent() -> None:
        with contextlib.suppress(OSError):
            connection, _ = hive.ssh.accept()
            hive.is_dialled.set()
            time.sleep(SSH_SECONDS)
            connection.close()

    server = ThreadingHTTPServer((hive.address, nodes_standin.PORT), Hive)
    server.daemon_threads = True
    for work in (server.serve_forever, be_silent):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield hive
    finally:
        server.shutdown()
        hive.ssh.close()


@contextlib.contextmanager
def queen(tree: Path, hive: Standin) -> Iterator[str]:
    """Have a queen of that checkout, with the node in its registry; gives its URL."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), hold_port()
        register(home, ("attic", hive.address), ssh_port=hive.ssh.getsockname()[1], host_key=HOST_KEY)
        (home / "token").touch(mode=0o600)
        (home / "token").write_text(TOKEN)
        env = os.environ | {
            "PYTHONPATH": str(tree),
            "RBEE_HOME": str(home),
            "RBEE_QUEEN_PORT": str(port),
            "RBEE_HIVE_PORT": str(hold_port()),
            "RBEE_QUEEN_MAX_WAITING": "1",
            "RBEE_TIMEOUTS_SSH_CONNECT": str(2 * SSH_SECONDS),
        }
        command = [sys.executable, "-m", "rbee", "queen", "--announce"]
        child = subprocess.Popen(command, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout is not None
        assert b'"ready"' in child.stdout.read()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate()
            child.wait(60)


class Client:
    """A connection to the queen, which is open already: a plain one, since a client's own work counts here too."""

    def __init__(self, url: str) -> None:
        self._http = http.client.HTTPConnection(urlsplit(url).netloc, timeout=3 * SSH_SECONDS)
        self.ask("GET", "/health")

    def ask(self, method: str, path: str) -> None:
        self.send(method, path).read()

    def send(self, method: str, path: str, body: object = None, accept: str = "*/*") -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": accept}
        self._http.request(method, path, None if body is None else json.dumps(body), headers)
        return self._http.getresponse()

    def place(self, model: str) -> None:
        """Ask for a worker, and wait for the answer."""
        self.send("POST", "/v2/tasks", {"prompt": "Once", "model": model, "node": "attic"}).read()

    def wait_in_line(self, request_id: str) -> http.client.HTTPResponse:
        """Ask for a worker that has no free slot; returns the stream once the request is in the line."""
        body = {"prompt": "Once", "model": FULL, "node": "attic", "wait_s": 3 * SSH_SECONDS, "request_id": request_id}
        response = self.send("POST", "/v2/tasks", body, "text/event-stream")
        while b"wait" not in (line := response.readline()):
            assert line, "the stream has ended"
            assert b"error" not in line, line
        assert b"Waiting for a slot" in line, line
        return response


def warm(url: str) -> list[float]:
    """Ask for the warm worker again and again, whether the one before was answered or not; returns the seconds."""
    found: list[float] = []

    def one(client: Client) -> None:
        began = time.perf_counter()
        client.place(WARM)
        found.append(time.perf_counter() - began)

    threads = [threading.Thread(target=one, args=(Client(url),)) for _ in range(REQUESTS)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    return found


def given_up(url: str, in_line: str, stop: threading.Event) -> list[float]:
    """Have the request `in_line` be given up, and another one take its place, which is given up in turn.

    Returns the seconds from the moment when one was given up until the next was in the line.
    """
    found: list[float] = []
    canceller = Client(url)
    while not (found and stop.is_set()):
        client = Client(url)
        began = time.perf_counter()
        canceller.ask("DELETE", f"/v2/tasks/{in_line}")
        in_line = str(uuid.uuid4())
        client.wait_in_line(in_line)
        found.append(time.perf_counter() - began)
        time.sleep(0.1)
    canceller.ask("DELETE", f"/v2/tasks/{in_line}")
    return found


if __name__ == "__main__":
    sys.exit(main())
