"""Stands in for a worker: started by a hive through its ordinary configuration, and misbehaves as its argument says.

well       does everything right, at once
slow       the same, half a second late
loading    never ends loading its model
deaf       answers no health check
impostor   says that it is another worker
stubborn   accepts neither a shutdown nor SIGTERM
silent     never calls back
exit       ends before it is ready
refuse     says why it cannot start
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("behaviour")
    for name in (
        "id",
        "model-ref",
        "model-path",
        "backend",
        "device",
        "slots",
        "context",
        "threads",
        "host",
        "hive-url",
    ):
        parser.add_argument(f"--{name}")
    options, _ = parser.parse_known_args()
    key = json.loads(sys.stdin.readline())["key"]
    match options.behaviour:
        case "exit":
            sys.exit(7)
        case "refuse":
            sys.stdout.write('{"error":{"code":"VRAM_EXHAUSTED","message":"no room"}}\n')
            sys.stdout.flush()
            sys.exit(1)
        case "silent":
            time.sleep(600)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "slow":
            time.sleep(0.5)
    server = ThreadingHTTPServer((options.host, 0), handler(options, key))
    threading.Thread(target=call_back, args=(options, key, f"http://{options.host}:{server.server_port}")).start()
    server.serve_forever()


def call_back(options: argparse.Namespace, key: str, url: str) -> None:
    """Tell the hive that the port is bound."""
    body = {
        "worker_id": options.id,
        "url": url,
        "model_ref": options.model_ref,
        "backend": options.backend,
        "device": int(options.device),
    }
    request = urllib.request.Request(
        f"{options.hive_url}/v1/workers/ready", json.dumps(body).encode(), {"Authorization": f"Bearer {key}"}
    )
    urllib.request.urlopen(request, timeout=10).close()


def handler(options: argparse.Namespace, key: str) -> type[BaseHTTPRequestHandler]:
    """Return what answers the hive."""
    slots = int(options.slots)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.close_connection = True

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (the library's name)
            pass

        def is_allowed(self) -> bool:
            if self.headers["Authorization"] == f"Bearer {key}":
                return True
            self.answer(401)
            return False

        def answer(self, status: int, body: object = None) -> None:
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            if self.path == "/v1/health":
                if options.behaviour == "deaf":
                    time.sleep(600)
                worker_id = "another" if options.behaviour == "impostor" else options.id
                self.answer(200, {"status": "alive", "version": "0", "api_version": "v1", "worker_id": worker_id})
            elif self.path == "/v1/ready":
                self.answer(200, {"ready": True, "state": "idle", "model_loaded": True})
            elif self.is_allowed() and self.path == "/v1/events":
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.tell()

        def tell(self) -> None:
            is_loading = options.behaviour == "loading"
            status: dict[str, object] = {"slots_total": slots, "layers_loaded": 3, "layers_total": 8}
            status |= (
                {"state": "loading", "slots_available": 0}
                if is_loading
                else {"state": "idle", "slots_available": slots}
            )
            while True:
                self.wfile.write(b"data: " + json.dumps(status).encode() + b"\n\n")
                self.wfile.flush()
                time.sleep(0.1)

        def do_POST(self) -> None:
            if not self.is_allowed() or self.path != "/v1/admin/shutdown":
                return
            if options.behaviour == "stubborn":
                time.sleep(600)
            self.answer(202)
            self.wfile.flush()
            os._exit(0)

    return Handler


if __name__ == "__main__":
    main()
