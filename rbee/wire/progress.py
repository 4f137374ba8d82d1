"""How far a download or the loading of a model is; of a download's events the field `stage` tells which one it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from rbee.wire.common import Amount, Count, Message, Narration


class Downloading(Message, kw_only=True):
    """Sizes in bytes, of all the model's files; the speed in MB a second."""

    stage: Literal["downloading"] = "downloading"
    bytes_downloaded: Count
    bytes_total: Count
    speed_mbps: Amount


class Retrying(Message, kw_only=True):
    """An attempt has failed, as `message` says; the next one, `attempt` in number, begins in `delay_ms`."""

    stage: Literal["retrying"] = "retrying"
    attempt: Count
    attempts: Count
    delay_ms: Count
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
    bytes_downloaded: Count = 0
    bytes_total: Count = 0
    speed_mbps: Amount = 0.0
    message: str | None = None
    code: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.stage in ("complete", "error")


class SwarmDownload(DownloadState, kw_only=True):
    """A download of one of the hives."""

    node: str


class Progress(Message, kw_only=True):
    """How far a model's loading or a copy is: which fields are set depends on `stage`.

    Sizes in bytes, but `vram_mb` in MB and `speed_mbps` in MB a second.
    """

    stage: str
    layers_loaded: Count = 0
    layers_total: Count = 0
    vram_mb: Amount = 0.0
    bytes_downloaded: Count = 0
    bytes_total: Count = 0
    speed_mbps: Amount = 0.0


class Reading(Message, kw_only=True):
    """How much of its prompt the model has read; the answer may have `most_tokens`."""

    stage: Literal["reading_prompt"] = "reading_prompt"
    tokens_read: Count
    tokens_total: Count
    most_tokens: Count


DownloadEvent = Downloading | Retrying | Verifying | Complete | Failed
STAGES: Final[dict[str, type[DownloadEvent | Reading]]] = {
    "downloading": Downloading,
    "retrying": Retrying,
    "verifying": Verifying,
    "complete": Complete,
    "error": Failed,
    "reading_prompt": Reading,
}
"""The message of a stage; of any other, Progress is."""

ProgressEvent = Narration | Progress | Reading | DownloadEvent
"""What a daemon reports while it does something for a caller."""

Report = Callable[[ProgressEvent], None]
"""Takes what happens, at once and without waiting; passes it up to the caller of the running request."""


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
