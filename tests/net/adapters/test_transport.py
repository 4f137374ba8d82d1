"""The connections of the HTTP client, whatever becomes of a request."""

from __future__ import annotations

import http.server
import threading
import warnings
from typing import TYPE_CHECKING

import psutil
import pytest
import trio

from rbee.adapters.http.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes is no error."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def connections(port: int) -> int:
    """Return how many connections of this process lead to a port."""
    return sum(bool(found.raddr) and found.raddr.port == port for found in psutil.Process().net_connections("tcp"))


class _CancelAfter(trio.abc.Instrument):
    """Cancels a scope when the main task has been scheduled a number of times."""

    def __init__(self, scope: trio.CancelScope, steps: int) -> None:
        self._scope = scope
        self._steps = steps
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._steps -= 1
            if self._steps == 0:
                self._scope.cancel()


@pytest.mark.parametrize("is_used_before", [False, True])
async def test_a_request_that_is_cancelled_anywhere_leaves_no_connection_open(port: int, is_used_before: bool) -> None:
    cancelled = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for steps in range(1, 60):
            async with connect(f"http://127.0.0.1:{port}", None) as client:
                if is_used_before:
                    assert (await client.get("/")).text == "ok"
                kept = connections(port)
                with trio.CancelScope() as scope:
                    instrument = _CancelAfter(scope, steps)
                    trio.lowlevel.add_instrument(instrument)
                    try:
                        await client.get("/")
                    finally:
                        trio.lowlevel.remove_instrument(instrument)
                cancelled += scope.cancelled_caught
                assert kept == int(is_used_before)
            assert connections(port) == 0, f"cancelled after {steps} steps"
            if not scope.cancelled_caught:
                break
    assert cancelled >= 2, "it was cancelled in the middle of things"
