"""Requests of all kinds, right and wrong, that Schemathesis makes of /openapi.json: none fails, none hangs."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.kit.swarm import Swarm

if TYPE_CHECKING:
    from pathlib import Path

PYTHON: Final = os.environ.get("RBEE_TEST_ALL_CLIENTS", "")
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
SECONDS: Final = 60
"""For one request: longer than the smallest model writes until its context is full, many times at once."""


@pytest.mark.timeout(600)
def test_what_the_description_says_holds(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("--full sends some thousand requests, in a minute or two")
    assert PYTHON, "build/test.py makes the environment"
    swarm = Swarm(tmp_path / "rbee", RBEE_WORKER_THREADS="2")
    swarm.start_queen()
    try:
        url = f"http://127.0.0.1:{swarm.env['RBEE_QUEEN_PORT']}/openapi.json"
        command = [PYTHON, "-m", "schemathesis.cli", "run", url, "--include-path-regex", "^/v1/"]
        command += ["--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--max-examples", "60"]
        command += ["--seed", "1", "--workers", "4", "--request-timeout", str(SECONDS), "--continue-on-failure"]
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stdout
        found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
        assert found is not None
        assert int(found[1]) == int(found[2]) > 1000, done.stdout
        assert "Traceback" not in (swarm.home / "logs" / "queen.log").read_text("utf-8")
    finally:
        swarm.kill()
