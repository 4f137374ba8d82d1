"""The events of a running download; the field `stage` tells them apart."""

from __future__ import annotations

from typing import Final, Literal

from rbee.wire.common import Message


class Downloading(Message, kw_only=True):
    """Sizes in bytes, of all the model's files; the speed in MB a second."""

    stage: Literal["downloading"] = "downloading"
    bytes_downloaded: int
    bytes_total: int
    speed_mbps: float


class Retrying(Message, kw_only=True):
    """An attempt has failed, as `message` says; the next one, `attempt` in number, begins in `delay_ms`."""

    stage: Literal["retrying"] = "retrying"
    attempt: int
    attempts: int
    delay_ms: int
    message: str


class Verifying(Message, kw_only=True):
    """A file is complete, and is compared with its hash."""

    stage: Literal["verifying"] = "verifying"


class Complete(Message, kw_only=True):
    """The model is on this node; `local_path` is its first file."""

    stage: Literal["complete"] = "complete"
    local_path: str


class Failed(Message, kw_only=True):
    """The download has ended without the model; `code` is one of the catalogue of errors."""

    stage: Literal["error"] = "error"
    code: str
    message: str


class DownloadState(Message, kw_only=True):
    """The state of a download, for followers of the hive: `asking` (the hub) until its first event.

    `message` says why it is retried or has failed; `code` is then one of the catalogue of errors.
    """

    download_id: str
    model_ref: str
    stage: Literal["asking", "downloading", "retrying", "verifying", "complete", "error"]
    bytes_downloaded: int = 0
    bytes_total: int = 0
    speed_mbps: float = 0.0
    message: str | None = None
    code: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.stage in ("complete", "error")


class SwarmDownload(DownloadState, kw_only=True):
    """A download of one of the hives."""

    node: str


DownloadEvent = Downloading | Retrying | Verifying | Complete | Failed
STAGES: Final[dict[str, type[DownloadEvent]]] = {
    "downloading": Downloading,
    "retrying": Retrying,
    "verifying": Verifying,
    "complete": Complete,
    "error": Failed,
}
