"""The command that deletes an installation, as it is shown to the user."""

from __future__ import annotations

import shlex

import msgspec
import pytest

from rbee.keeper.commands.setup_remove import deletion
from rbee.wire.registry import BeehiveRow

ROW = {
    "node_name": "attic",
    "ssh_host": "192.168.1.5",
    "ssh_port": 22,
    "ssh_user": "bee",
    "ssh_key_path": None,
    "git_repo_url": None,
    "host_key": "ssh-ed25519 AAAA",
    "last_connected_unix": None,
    "last_error": None,
    "install_path": "/home/bee/.local/share/rbee/node",
    "git_branch": "main",
    "tunnel": "auto",
    "status": "reachable",
    "backends": [],
    "devices": {},
    "spawned_by_queen": False,
}


def row(**values: object) -> BeehiveRow:
    return msgspec.convert(ROW | values, BeehiveRow)


def test_it_is_plain_with_the_defaults() -> None:
    assert deletion(row()) == "ssh bee@192.168.1.5 'rm -r /home/bee/.local/share/rbee/node'"


def test_it_uses_the_registered_port_user_and_key() -> None:
    shown = deletion(row(ssh_port=2222, ssh_key_path="/home/me/my key"))
    assert shlex.split(shown)[:6] == ["ssh", "-p", "2222", "-i", "/home/me/my key", "bee@192.168.1.5"]


@pytest.mark.parametrize("path", ["/srv/my bees", "/srv/$(touch canary)", "/srv/it's"])
def test_both_shells_read_the_path_as_it_is(path: str) -> None:
    there = shlex.split(deletion(row(install_path=path)))[-1]
    assert shlex.split(there) == ["rm", "-r", path]
