"""Stands in for a worker: started by a hive through its ordinary configuration, and misbehaves as its arguments say.

well       does everything right, at once
slow       the same, half a second late

Starting:
silent     never calls back
exit       ends before it is ready
refuse     says why it cannot start
holder     ends before it is ready, and leaves a process that holds its stdout

Loading:
loading    never ends loading its model
fall       ends with a memory fault while it loads, after half a second
hungry     takes memory while it loads until there is none, and is killed

Serving:
busy       has no free slot
hang       takes a prompt and never sends a token
pause      sends some tokens (--after), and then only signs of life
mute       never answers who wants to stop a request
crash      ends after some tokens (--after)
segfault   ends with a memory fault after some tokens
cut        closes a stream after some tokens, and lives on
deaf       answers no health check
impostor   says that it is another worker

Ending:
stubborn   accepts neither a shutdown nor SIGTERM
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import ThreadingHTTPServer

from standin_answers import Worker, fault, handler, take_all_memory


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("behaviours", nargs="+")
    parser.add_argument("--after", type=int, default=3, help="tokens before it misbehaves")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds for each token")
    for name in ("id", "model-ref", "backend", "device", "slots", "host", "hive-url"):
        parser.add_argument(f"--{name}", required=True)
    options, _ = parser.parse_known_args()
    behaves = set(options.behaviours)
    key = json.loads(sys.stdin.readline())["key"]
    if "exit" in behaves:
        sys.stderr.write("rbee: the device is on fire\n")
        sys.exit(7)
    if "refuse" in behaves:
        sys.stdout.write('{"error":{"code":"VRAM_EXHAUSTED","message":"no room"}}\n')
        sys.stdout.flush()
        sys.exit(1)
    if "holder" in behaves:
        subprocess.Popen(["sleep", "5"], stdin=subprocess.DEVNULL, env={})
        sys.exit(7)
    if "silent" in behaves:
        sys.stderr.write("rbee: waiting for a device that never comes\n")
        sys.stderr.flush()
        time.sleep(600)
    if "stubborn" in behaves:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "slow" in behaves:
        time.sleep(0.5)
    worker = Worker(options.id, key, int(options.slots), behaves, options.after, options.pace)
    server = ThreadingHTTPServer((options.host, 0), handler(worker))
    worker.url = f"http://{options.host}:{server.server_port}"
    threading.Thread(target=call_back, args=(options, key, worker.url)).start()
    if "hungry" in behaves:
        threading.Thread(target=take_all_memory, daemon=True).start()
    if "fall" in behaves:
        threading.Timer(0.5, fault).start()
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


if __name__ == "__main__":
    main()
