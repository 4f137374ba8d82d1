"""Runs the scripts of `rbee/data/remote` on other machines, and reads the facts that they print."""

from __future__ import annotations

import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rbee.data
from rbee.adapters.logs.redaction import public
from rbee.errors import SshFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rbee.adapters.ssh.connection import SshConnection

MAX_SHOWN: Final = 200
"""Characters of the last line of a failed command."""
_BEGUN: Final = "begun"
"""The first fact of every script; without it, a forced command or an odd login shell ran in its place."""
Facts = dict[str, list[str]]
"""What a script printed with its `say`: the values by name, in order."""


class NodePaths:
    """The files of one installation, below its install path."""

    def __init__(self, install: str) -> None:
        self.program = f"{install}/bin/rbee"
        self.python = f"{install}/bin/rbee-python"  # a link to the Python that runs the program
        self.config = f"{install}/config.toml"
        self.token = f"{install}/token"
        self.cache = f"{install}/cache"
        self.state = f"{install}/state"
        self.logs = f"{self.state}/logs"
        self.lock = f"{self.state}/hive.lock"  # in which the hive says where it listens and which process it is


async def run(
    connection: SshConnection,
    name: str,
    parameters: Mapping[str, str],
    on_fact: Callable[[str, str], None] | None = None,
) -> Facts:
    """Run a script; `on_fact` gets each name and value as it comes.

    The script goes over stdin to `sh`, whatever the login shell is. Each fact begins with a random mark, so that a
    banner or a profile that prints can neither disturb nor pretend. Raises SshFailedError (`command`) when the script
    fails, or was never run.
    """
    mark = secrets.token_hex(8)
    facts: Facts = {}

    def parse(line: str) -> None:
        found, _, rest = line.partition(" ")
        if found == mark:
            key, _, value = rest.partition(" ")
            facts.setdefault(key, []).append(value)
            if on_fact is not None and key != _BEGUN:
                on_fact(key, value)

    # A line of its own for the first mark, after a banner that ends without one.
    head = ["echo", f"mark={mark}", 'say() { printf \'%s %s %s\\n\' "$mark" "$1" "$2"; }']
    head += [f"{key}={shlex.quote(value)}" for key, value in parameters.items()]
    head.append(f"say {_BEGUN} ''")
    text = (Path(rbee.data.__path__[0]) / "remote" / f"{name}.sh").read_text(encoding="utf-8")
    # In braces the shell reads all of it before it does any of it, so a lost connection cuts no command short.
    done = await connection.run("exec sh -s", "\n".join([*head, "{", text, "}"]).encode(), parse)
    if done.code != 0:
        last = [line.strip() for line in (done.output + done.errors).splitlines() if line.strip()][-1:]
        words = public(last[0])[:MAX_SHOWN] if last else f"exit code {done.code}"
        raise SshFailedError(f"a command failed on the other side: {words}", reason="command", exit_code=done.code)
    if facts.pop(_BEGUN, None) is None:
        raise SshFailedError(
            "the other side runs no commands: something else came in place of ours",
            hint="look for ForceCommand in its sshd_config, command= in its authorized_keys, and at the login shell",
            reason="command",
        )
    return facts
