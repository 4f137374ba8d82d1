"""Says where an SSH connection leads, and what helps where none could be made."""

from __future__ import annotations

from typing import Final, NamedTuple

from rbee.errors import SshFailedError

SSH_PORT: Final = 22


class Target(NamedTuple):
    """Where to connect, and as whom; without `key_path` the agent's and the usual keys are tried.

    `host_key` is the public key that the server must have, in its one-line form.
    """

    host: str
    port: int
    user: str
    key_path: str | None = None
    host_key: str | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == SSH_PORT else f":{self.port}")


def failed(target: Target, reason: str, words: str) -> SshFailedError:
    port = "" if target.port == SSH_PORT else f"-p {target.port} "
    hints = {
        "dns": "look at the spelling of the host, or give its address",
        "timeout": "see that the machine is on and reachable, and that no firewall is in between",
        "refused": "see that sshd runs there, and at which port",
        "auth": f"`ssh-copy-id {port}{target.user}@{target.host}` puts your key there; --ssh-key names another one",
    }
    return SshFailedError(f"SSH to {target} failed: {words}", hint=hints.get(reason), reason=reason)
