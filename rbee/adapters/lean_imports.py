"""Keeps libraries from importing what rbee does not use, or hardly ever: a start takes 15 ms less.

It has to run before the libraries are imported; without it everything works, only later.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

UNUSED: Final = (
    "httpx._main",  # its own command line, with click, rich and pygments: 40 ms
    "httpcore._async.http2",  # with h2, 9 ms where no server has imported it; rbee's clients speak HTTP/1.1
    "httpcore._sync.http2",
    "anyio",  # 4 ms, for asyncio; on trio httpcore does without
)
"""What httpx and httpcore import where they can, and do without where they cannot."""
LATE: Final = {
    "hypercorn.protocol.h2": "H2Protocol",  # with most of h2, for who speaks HTTP/2: 6 ms
    "hypercorn.protocol.ws_stream": "WSStream",  # with wsproto, for who asks for a websocket: 9 ms
}
"""Module → the class for whose sake it is imported, and which is only ever called."""


def arrange(*, serves: bool) -> None:
    """See to it that none of it is imported, or not before it is needed; the times above are CPU's.

    `serves`: whether this process may become a server.
    """
    for name in UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # Python takes it for a module that is not there
    for name in LATE if serves else ():
        if name not in sys.modules:
            sys.modules[name] = _Late(name)


class _Late(ModuleType):
    """In the place of a module, until its class is called."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        setattr(self, LATE[name], self._make)

    def _make(self, *arguments: Any, **named: Any) -> Any:
        name = self.__name__
        if sys.modules.get(name) is self:
            del sys.modules[name]
        return getattr(importlib.import_module(name), LATE[name])(*arguments, **named)
