"""The messages about a node's logs, which hive and queen give alike."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rbee.wire.common import Message, Name, Request
from rbee.wire.queen import LOCAL_NODE

HIVE_LOGS: Final = "/v1/logs"
QUEEN_LOGS: Final = "/v2/logs"


class LogQuery(Request, kw_only=True):
    """The newest `lines` of a log; with `follow` also what is written from then on, until the client goes."""

    lines: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 200
    follow: bool = False


class NodeLogQuery(LogQuery, kw_only=True):
    """The same of the logs of one node."""

    node: Name = LOCAL_NODE


class LogLine(Message, kw_only=True, omit_defaults=True):
    """One line of a log: `source` is `queen`, `hive`, or `worker-` with the worker's id.

    A line that native code wrote has no `time` (UTC, ISO 8601) and no `level`.
    """

    source: str
    message: str
    time: str | None = None
    level: str | None = None
    correlation_id: str | None = None
