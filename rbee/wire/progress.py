"""How far a download or the loading of a model is."""

from __future__ import annotations

from collections.abc import Callable

from rbee.wire.common import Message, Narration
from rbee.wire.download import DownloadEvent


class Progress(Message, kw_only=True):
    """How far a model's loading or a copy is: which fields are set depends on `stage`.

    Sizes in bytes, but `vram_mb` in MB and `speed_mbps` in MB a second.
    """

    stage: str
    layers_loaded: int = 0
    layers_total: int = 0
    vram_mb: float = 0.0
    bytes_downloaded: int = 0
    bytes_total: int = 0
    speed_mbps: float = 0.0


ProgressEvent = Narration | Progress | DownloadEvent
"""What a daemon reports while it does something for a caller."""

Report = Callable[[ProgressEvent], None]
"""Takes what happens, at once and without waiting; passes it up to the caller of the running request."""
