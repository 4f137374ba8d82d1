"""A client whose socket a test has in its hands."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from tests.kit.leaving import connect

if TYPE_CHECKING:
    from collections.abc import Callable

_EVENT: Final = re.compile(rb"data: (.*)\n\n")


class FailedError(Exception):
    """The answer is an error object, or ends with one."""


class Client:
    """Posts one request on a connection of its own, `socket`, and reads its events one by one."""

    def __init__(self, url: str, key: str, body: dict[str, Any]) -> None:
        origin, _, path = url.removeprefix("http://").partition("/")
        self.socket = connect(int(origin.rpartition(":")[2]), buffer=65536)
        self.socket.settimeout(30)
        content = json.dumps(body).encode()
        head = f"POST /{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(content)}"
        self._unread = b""
        try:
            self.socket.sendall(head.encode() + b"\r\n\r\n" + content)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self.socket.close()

    def until(self, is_it: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Read events up to one for which `is_it` holds, and return its data.

        Raises FailedError, or EOFError where the connection ends without a word.
        """
        while True:
            while (found := _EVENT.search(self._unread)) is None:
                if not (more := self.socket.recv(4096)):
                    raise EOFError("the connection ended early")
                self._unread += more
                if b'{"error"' in self._unread:
                    raise FailedError(self._unread.decode(errors="replace"))
            self._unread = self._unread[found.end() :]
            data: dict[str, Any] = json.loads(found[1])
            if is_it(data):
                return data
