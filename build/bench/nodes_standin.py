"""Plays many hives at once, each with one worker, at loopback addresses: real sockets and HTTP, and next to no work.

python3 build/bench/nodes_standin.py VERSION SWARM ADDRESS…      prints `ready`, runs until it is ended
"""

import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 9200
WORKER = {
    "id": "0d6b5c0e-7f0b-4f6e-9a58-0c6f5c5b0f01", "model_ref": "builtin:bee-stories",
    "backend": "cpu", "device": 0, "state": "idle", "slots_total": 4, "slots_available": 4, "pid": 1,
}  # fmt: skip
DEVICE = {"index": 0, "name": "CPU", "memory_total": 16_000_000_000, "memory_available": 8_000_000_000}
ANSWER = b"""\
data: {"token":"Once","index":0}

data: {"done":true,"total_tokens":1,"duration_ms":1.0,"stop_reason":"eos"}

data: [DONE]

"""
SPACE = {"total": 16_000_000_000, "available": 8_000_000_000}


def answers(version: str, swarm: str, address: str) -> dict[str, bytes]:
    """Return what is answered at each path by the hive at `address`, which belongs to `swarm`."""
    hive_id = hashlib.sha256(address.encode()).hexdigest()[:32]
    found = {
        "/v1/health": {
            "status": "alive",
            "version": version,
            "api_version": "v1",
            "hive_id": hive_id,
            "swarm": swarm,
        },
        "/v1/workers/list": {"workers": [WORKER | {"url": f"http://{address}:{PORT}"}]},
        "/v1/backends": {"backends": [{"name": "cpu", "devices": [DEVICE]}]},
        "/v1/resources": {"memory": SPACE, "disk": SPACE},
    }
    return {path: json.dumps(body).encode() for path, body in found.items()}


def serve(version: str, swarm: str, address: str) -> None:
    """Answer at one address."""
    bodies = answers(version, swarm, address)

    class Hive(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            if self.path == "/v1/events":
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self.wfile.write(b"event: state\ndata: " + bodies["/v1/workers/list"] + b"\n\n")
                self.wfile.flush()
                self.rfile.read()  # until the queen closes
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(bodies[self.path])))
            self.end_headers()
            self.wfile.write(bodies[self.path])

        def do_POST(self) -> None:
            """Generate as the worker."""
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((address, PORT), Hive)
    threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    for place in sys.argv[3:]:
        serve(sys.argv[1], sys.argv[2], place)
    print("ready", flush=True)
    sys.stdin.read()
