"""Has a program carry a connection: ProxyCommand of ssh's settings."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import Final

MAX_WORDS: Final = 4096
"""Bytes of what the program may say of its failure."""
ENDING_SECONDS: Final = 1.0


class ProxyCommand:
    """A running program whose stdin and stdout are the other end of `sock`. Raises OSError."""

    def __init__(self, command: str) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 (closed below)
        self.sock, theirs = socket.socketpair()
        with theirs:
            # As ssh: by the user's shell, which the program replaces.
            shell = os.environ.get("SHELL") or "/bin/sh"
            try:
                self._process = subprocess.Popen(
                    [shell, "-c", f"exec {command}"],
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=self._words,
                    process_group=0,
                )
            except OSError:
                self.sock.close()
                self._words.close()
                raise

    def last_words(self) -> str:
        """Return the last line that the program has written on stderr; empty for none."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING_SECONDS)  # it closes its end first, and may have more to say
        found = os.pread(self._words.fileno(), MAX_WORDS, 0).decode("utf-8", "replace")
        lines = [line.strip() for line in found.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End the program, without waiting for that."""
        self.sock.close()
        self._signal(signal.SIGTERM)
        threading.Thread(target=self._reap, daemon=True).start()

    def _reap(self) -> None:
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._words.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
