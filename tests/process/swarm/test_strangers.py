"""What belongs to someone else, or gives way: another user's hive, a full disk."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from rbee.adapters.daemon.instance import InstanceLock
from rbee.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_hive_with_another_token_is_named(daemons: Any, tmp_path: Path) -> None:
    hive = daemons.start("hive", home=tmp_path / "other")
    host = hive.url.removeprefix("http://")
    queen = daemons.start("queen", RBEE_HIVE_PORT=host.rpartition(":")[2])
    with queen.client() as client:
        answer = client.post("/v2/tasks", json={"prompt": "x"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]["host"]) == (401, "INVALID_API_KEY", host)
    assert f"the hive at {host}" in error["message"]
    assert "port" in error["hint"]
    for token in (queen.token, hive.token):
        assert token not in json.dumps(error)


@pytest.mark.parametrize("full", ["at once", "half-way"])
def test_a_disk_that_is_full_at_the_last_moment_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    def write(*_: object) -> int:
        if full == "half-way":
            return 3
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = InstanceLock(tmp_path, "queen")
    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(StorageError, match="cannot be written"):
        place.publish("http://127.0.0.1:1", "1", ephemeral=False)
