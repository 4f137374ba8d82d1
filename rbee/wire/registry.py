"""The queen's messages about its registry of nodes, which the interface calls beehives."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from rbee.wire.common import Message, Name, Request

ADD: Final = "/v2/registry/beehives/add"
UPDATE: Final = "/v2/registry/beehives/update"
LIST: Final = "/v2/registry/beehives/list"
REMOVE: Final = "/v2/registry/beehives/remove"
INSTALL: Final = "/v2/registry/beehives/install"

DEFAULT_INSTALL_PATH: Final = "~/.local/share/rbee/node"

_HOST: Final = r"^[A-Za-z0-9:_][A-Za-z0-9._:%-]{0,253}\Z"
_USER: Final = r"^[A-Za-z_][A-Za-z0-9._-]{0,62}\$?\Z"
_PATH: Final = r"^(/|~/)[^\x00-\x1f\x7f]*\Z"
_BRANCH: Final = r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._/-]{0,200}\Z"
_REPOSITORY: Final = (
    r"^(?:(?:https?|ssh|git|file)://[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*"
    r"|/[^\x00-\x1f\x7f]*"
    r"|[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*)\Z"
)
_FINGERPRINT: Final = r"^SHA256:[A-Za-z0-9+/]{43}\Z"
RULES: Final = {
    _HOST: "a host's name or address",
    _USER: "a user's name: a letter or underscore, then letters, digits, dots, dashes or underscores",
    _PATH: "an absolute path, or one that begins with ~/, without control characters",
    _BRANCH: "a branch's name: letters, digits and ._/-, not beginning with a dash",
    _REPOSITORY: "a Git repository: https://…, ssh://…, user@host:path or an absolute path",
    _FINGERPRINT: "a fingerprint as `ssh-keygen -lf` shows it: SHA256: and 43 characters",
}
"""The patterns in words."""

Host = Annotated[str, msgspec.Meta(pattern=_HOST)]
User = Annotated[str, msgspec.Meta(pattern=_USER)]
RemotePath = Annotated[str, msgspec.Meta(max_length=1024, pattern=_PATH)]
Branch = Annotated[str, msgspec.Meta(pattern=_BRANCH)]
Repository = Annotated[str, msgspec.Meta(max_length=1024, pattern=_REPOSITORY)]
Fingerprint = Annotated[str, msgspec.Meta(pattern=_FINGERPRINT)]
SshPort = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Tunnel = Literal["auto", "always", "never"]
"""Whether HTTP to the node goes through its SSH connection; `auto` does so where its ports cannot be reached."""


class Beehive(Request, kw_only=True):
    """A node as a user describes it; `install_path` and `ssh_key_path` may begin with ~/.

    Port and user that are not there are those of ssh's settings on the queen's host, where `ssh_host` may be any name.
    `accept_host_key` is the fingerprint of a host key that may be new. `backends` and `devices` are found out where
    they are None.
    """

    node_name: Name
    ssh_host: Host
    ssh_port: SshPort | msgspec.UnsetType | None = msgspec.UNSET
    ssh_user: User | msgspec.UnsetType | None = msgspec.UNSET
    ssh_key_path: RemotePath | None = None
    install_path: RemotePath = DEFAULT_INSTALL_PATH
    git_repo_url: Repository | None = None
    git_branch: Branch = "main"
    backends: list[Name] | None = None
    devices: dict[Name, Annotated[int, msgspec.Meta(ge=0, le=1024)]] | None = None
    tunnel: Tunnel = "auto"
    accept_host_key: Fingerprint | None = None


class SshSettings(Message, kw_only=True):
    """What of the way to a node follows ssh's settings, and is as they were when the queen last connected.

    `address` is the host's, which `ssh_host` may only stand for; `is_proxied` says that other machines or a program
    lead there, so that only SSH does.
    """

    address: str
    has_port: bool = False
    has_user: bool = False
    is_proxied: bool = False


class BeehiveRow(Message, kw_only=True):
    """A node as the registry holds it; paths are absolute, times are Unix seconds, `host_key` is the pinned key.

    `hive_url` is where its hive last listened, as the node itself knows it; `is_tunnelled` says whether only SSH leads
    there. `hive_id` identifies its hive, once that has been seen. Where `ssh_settings` is None, all is as it was given.
    """

    node_name: str
    ssh_host: str
    ssh_port: int
    ssh_user: str
    ssh_key_path: str | None
    git_repo_url: str | None
    git_branch: str
    install_path: str
    tunnel: Tunnel
    host_key: str
    last_connected_unix: float | None
    last_error: str | None
    status: Literal["unknown", "reachable", "unreachable"]
    backends: list[str]
    devices: dict[str, int]
    spawned_by_queen: bool
    hive_url: str | None = None
    is_tunnelled: bool = False
    hive_id: str | None = None
    ssh_settings: SshSettings | None = None

    @property
    def address(self) -> str:
        """The host's name or address, for other things than SSH."""
        return self.ssh_host if self.ssh_settings is None else self.ssh_settings.address


class BeehiveList(Message, kw_only=True):
    nodes: list[BeehiveRow]


class NodeName(Request, kw_only=True):
    node_name: Name


class InstallRequest(Request, kw_only=True):
    """`from_source` builds the stored repository and branch there; `rollback` takes the version before back.

    `python` is the path of the Python there that runs rbee from now on; without it one is found.
    """

    node_name: Name
    from_source: bool = False
    rollback: bool = False
    python: RemotePath | msgspec.UnsetType | None = msgspec.UNSET


class Success(Message, kw_only=True):
    """A change to the registry is done."""

    success: Literal[True] = True
    message: str
    node_name: str
