"""What a node's scheduler wants to be done (PURE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.queen.scheduling.choose_worker import Wanted
    from rbee.queen.scheduling.place_request import HiveRequest, Placed, PlaceRequest
    from rbee.wire.progress import ProgressEvent


class EnsureHive(NamedTuple):
    """Find the hive, or start it; `first` is the request that is the reason."""

    first: PlaceRequest | HiveRequest


class ListWorkers(NamedTuple):
    """Ask the hive at `url` for its workers, on behalf of these requests."""

    url: str
    requests: list[PlaceRequest]


class StartWorker(NamedTuple):
    """Have the hive at `url` start a worker; `first` is the request that is the reason."""

    url: str
    first: PlaceRequest


class CancelStart(NamedTuple):
    """Stop waiting for a start, which ends the download that it has come to."""

    wanted: Wanted


class ReportProgress(NamedTuple):
    """Pass on what happens to a request."""

    request: PlaceRequest | HiveRequest
    event: ProgressEvent


class AnswerPlace(NamedTuple):
    """A request has a worker, or the error."""

    request: PlaceRequest
    result: Placed | RbeeError


class AnswerHive(NamedTuple):
    """The node's hive answers at this URL, or the error."""

    request: HiveRequest
    result: str | RbeeError


Effect = EnsureHive | ListWorkers | StartWorker | CancelStart | ReportProgress | AnswerPlace | AnswerHive
