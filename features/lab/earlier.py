"""An earlier version of rbee, as far as a queen can tell: it says so, and its hive answers for its health."""

from __future__ import annotations

import argparse
import json
import os
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

VERSION = "0.0.1"


class Handler(BaseHTTPRequestHandler):
    """Answers that it is alive, and nothing else."""

    def do_GET(self) -> None:
        health = {"status": "alive", "version": VERSION, "api_version": "v1", "started_by": "queen"}
        content = json.dumps(health).encode()
        self.send_response(200 if self.path == "/v1/health" else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Play the part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", nargs="?")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--host")
    parser.add_argument("--config", type=Path)
    options, _ = parser.parse_known_args()
    if options.version:
        print(f"rbee {VERSION}")  # noqa: T201 (what is asked for)
        return
    server = HTTPServer((options.host, 9200), Handler)
    state = Path(tomllib.loads(options.config.read_text())["paths"]["state_dir"])
    identity = {
        "pid": os.getpid(),
        "started_at": int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }
    url = f"http://{options.host}:9200"
    instance = {"identity": identity, "url": url, "version": VERSION, "ephemeral": False, "started_by": "queen"}
    (state / "hive.lock").write_text(json.dumps(instance, separators=(",", ":")))
    ready = {"ready": {"url": url, "pid": os.getpid(), "version": VERSION}}
    print(json.dumps(ready, separators=(",", ":")), flush=True)  # noqa: T201 (what a parent reads)
    server.serve_forever()


if __name__ == "__main__":
    main()
