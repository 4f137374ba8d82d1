"""Runs the scripts of `rbee/data/remote` on other machines, and reads what they say."""

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

    from rbee.adapters.ssh.connection import Connection

SHOWN: Final = 200
"""Characters of what a failed command said last."""
_BEGUN: Final = "begun"
"""What every script says first; without it, a forced command or an odd login shell ran in its place."""
Said = dict[str, list[str]]
"""What a script said, by name, in order."""


async def run(
    connection: Connection,
    name: str,
    parameters: Mapping[str, str],
    heard: Callable[[str, str], None] | None = None,
) -> Said:
    """Run a script; `heard` gets each name and value as it is said.

    The script goes over stdin to `sh`, whatever the login shell is. What it says has a mark in front that nobody could
    know before, so a banner or a profile that prints can neither disturb nor pretend. Raises SshFailedError
    (`command`) when it fails, or was never run.
    """
    mark = secrets.token_hex(8)
    said: Said = {}

    def hear(line: str) -> None:
        found, _, rest = line.partition(" ")
        if found == mark:
            key, _, value = rest.partition(" ")
            said.setdefault(key, []).append(value)
            if heard is not None and key != _BEGUN:
                heard(key, value)

    # A line of its own for the first mark, after a banner that ends without one.
    head = ["echo", f"mark={mark}", 'say() { printf \'%s %s %s\\n\' "$mark" "$1" "$2"; }']
    head += [f"{key}={shlex.quote(value)}" for key, value in parameters.items()]
    head.append(f"say {_BEGUN} ''")
    text = (Path(rbee.data.__path__[0]) / "remote" / f"{name}.sh").read_text(encoding="utf-8")
    # In braces the shell reads all of it before it does any of it, so a lost connection cuts no command short.
    done = await connection.run("exec sh -s", "\n".join([*head, "{", text, "}"]).encode(), hear)
    if done.code != 0:
        last = [line.strip() for line in (done.output + done.errors).splitlines() if line.strip()][-1:]
        words = public(last[0])[:SHOWN] if last else f"exit code {done.code}"
        raise SshFailedError(f"a command failed on the other side: {words}", reason="command", exit_code=done.code)
    if said.pop(_BEGUN, None) is None:
        raise SshFailedError(
            "the other side runs no commands: something else came in place of ours",
            hint="look for ForceCommand in its sshd_config, command= in its authorized_keys, and at the login shell",
            reason="command",
        )
    return said
