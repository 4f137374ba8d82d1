"""Opens sessions on an SSH connection, also where the server allows only one at a time."""

from __future__ import annotations

import time
from typing import Final

import paramiko

from rbee.errors import SshFailedError

OPEN_SECONDS: Final = 10.0
"""For the server to answer."""
ENDING_SECONDS: Final = 3.0
"""For the previous session to end there, after we have closed it."""
RETRY_SECONDS: Final = 0.05


def open_session(transport: paramiko.Transport) -> paramiko.Channel:
    """Open a session; blocks. Raises what paramiko raises, or SshFailedError where the server allows no more of them.

    A session that we closed counts there until its process is gone (sshd_config(5), MaxSessions).
    """
    until = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            return transport.open_session(timeout=OPEN_SECONDS)
        except paramiko.ChannelException as exc:
            if time.monotonic() >= until:
                raise SshFailedError(
                    f"the server opens no session: {exc.text.lower()}",
                    hint="look at MaxSessions in its sshd_config, and at who else is logged in there",
                    reason="command",
                ) from exc
        time.sleep(RETRY_SECONDS)
