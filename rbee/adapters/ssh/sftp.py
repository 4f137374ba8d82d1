"""Copies files to another machine over an SSH connection; blocks, and raises what paramiko raises."""

from __future__ import annotations

import re
import secrets
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import paramiko
import trio

from rbee.adapters.ssh import shell_copy
from rbee.adapters.ssh.session import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PACKET_BYTES: Final = 255 * 1024
"""What OpenSSH takes as one SFTP packet: 256 KiB with its head (sftp-server.c, SFTP_MAX_MSG_LENGTH)."""
NO_SFTP: Final = "what answers there is not SFTP"
STALLED_SECONDS: Final = 60.0
"""How long the server may take no byte and give no answer."""
ANSWER_SECONDS: Final = 5.0
"""For the server to begin and to write its first file: some hang, and the shell is there too."""
ANOTHER_ROOT: Final = "it does not write there"
MAX_BANNER: Final = 64 * 1024
VERSION: Final = re.compile(rb"\x00\x00..\x02\x00\x00\x00[\x03-\x06]", re.DOTALL)
"""The head of the server's first packet: a length, SSH_FXP_VERSION, the version (draft-ietf-secsh-filexfer, 4)."""


def upload(
    transport: paramiko.Transport, file: Path, to: str, mode: int, on_progress: Callable[[int], None] | None
) -> None:
    """Copy a file to the absolute path `to`; `on_progress` gets the bytes sent so far. A failure leaves nothing."""
    with _open(transport) as sftp, file.open("rb") as source:
        try:
            _copy(source, sftp, to, mode, on_progress)
        except OSError:
            with suppress(OSError):
                sftp.remove(to)  # on a full disk it would take room from everything else
            raise


def _copy(
    source: BinaryIO, sftp: paramiko.SFTPClient, to: str, mode: int, on_progress: Callable[[int], None] | None
) -> None:
    with sftp.open(to, "wb") as target:
        target.set_pipelined(True)
        target.chmod(mode)
        sent = 0
        while chunk := source.read(PACKET_BYTES):
            target.write(chunk)
            sent += len(chunk)
            if on_progress is not None:
                trio.from_thread.run_sync(on_progress, sent)


def write(transport: paramiko.Transport, content: bytes, to: str, mode: int) -> None:
    """Write a small file at the absolute path `to`, whole or not at all."""
    with _open(transport) as sftp:
        beside = f"{to}.new"
        try:
            with sftp.open(beside, "wb") as target:
                target.chmod(mode)
                target.write(content)
            sftp.posix_rename(beside, to)
        except OSError:
            with suppress(OSError):
                sftp.remove(beside)
            raise


def obstacle(transport: paramiko.Transport, folder: str) -> str | None:
    """Return why files do not get to the folder that the shell there has under this name; None where they do.

    `ANOTHER_ROOT` is said of this folder, anything else of all of them.
    """
    marker = f"{folder}/.rbee.{secrets.token_hex(8)}.seen"
    until = time.monotonic() + ANSWER_SECONDS
    try:
        with _open(transport, ANSWER_SECONDS) as sftp:
            sftp.open(marker, "wb").close()
    except (paramiko.SSHException, OSError, EOFError) as exc:
        if not transport.is_active():
            raise
        if time.monotonic() >= until:
            shell_copy.take_away(transport, marker)
            return f"it did not answer within {ANSWER_SECONDS:g} s"
        return ANOTHER_ROOT if isinstance(exc, OSError) else "it is off"
    if shell_copy.take_away(transport, marker):
        return None
    with suppress(paramiko.SSHException, OSError, EOFError), _open(transport, ANSWER_SECONDS) as sftp:
        sftp.remove(marker)
    return ANOTHER_ROOT


@contextmanager
def _open(transport: paramiko.Transport, seconds: float | None = None) -> Iterator[paramiko.SFTPClient]:
    """Open a session of SFTP, which lasts so many seconds at most: paramiko waits for some answers without a limit."""
    channel = open_session(transport)
    channel.settimeout(STALLED_SECONDS)
    watch = None if seconds is None else threading.Timer(seconds, channel.close)
    try:
        if watch is not None:
            watch.daemon = True
            watch.start()
        channel.invoke_subsystem("sftp")
        yield _begin(channel)
    finally:
        if watch is not None:
            watch.cancel()
        channel.close()


def _begin(channel: paramiko.Channel) -> paramiko.SFTPClient:
    """Exchange versions with the server. Raises SSHException for one that speaks something else, or has ended."""
    try:
        return paramiko.SFTPClient(_AfterBanner(channel))  # type: ignore[arg-type]
    except OSError as exc:
        if channel.closed:  # before our version could be sent
            raise paramiko.SSHException(NO_SFTP) from exc
        raise


class _AfterBanner:
    """A channel that skips what a login shell prints before SFTP begins: many sshd start its server by that shell."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._begun = False
        self._pending = b""

    def recv(self, most: int) -> bytes:
        while not self._begun:
            data = self._channel.recv(65536)
            self._pending += data
            if (found := VERSION.search(self._pending)) is not None:
                self._begun = True
                self._pending = self._pending[found.start() :]
            elif not data or len(self._pending) > MAX_BANNER:
                raise paramiko.SSHException(NO_SFTP)
        if self._pending:
            data, self._pending = self._pending[:most], self._pending[most:]
            return data
        return self._channel.recv(most)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)
