"""Draws progress bars on stderr."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rbee.keeper.output import render
from rbee.wire.progress import Downloading, Reading
from rbee.wire.progress import Progress as Loading

if TYPE_CHECKING:
    from rich.progress import TaskID

    from rbee.wire.progress import DownloadEvent

DRAW_SECONDS: Final = 0.05
"""Seconds between two refreshes."""


class Bars:
    """One progress bar at a time; hidden, it leaves nothing on the screen."""

    def __init__(self, *, colours: bool) -> None:
        self._console = Console(stderr=True, no_color=not colours, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._drawn_at = 0.0

    def show(self, event: Loading | Reading | DownloadEvent) -> None:
        """Draw the progress that `event` reports; a stage without an amount hides the bar."""
        match event:
            case Loading(stage="loading_to_vram"):
                layers = f"{event.layers_loaded}/{render.plural(event.layers_total, 'layer')}"
                amount = f"{layers}  {event.vram_mb:.0f} MB"
                self._draw("Loading model", event.layers_loaded, event.layers_total, amount)
            case Downloading() | Loading(stage="downloading" | "copying" | "hashing") if event.bytes_total > 0:
                percent = 100 * event.bytes_downloaded // event.bytes_total
                sizes = f"{render.size(event.bytes_downloaded)} of {render.size(event.bytes_total)}"
                speed = f"  {event.speed_mbps:.1f} MB/s" if event.stage != "hashing" else ""
                amount = f"{percent:3d} %  {sizes}{speed}"
                self._draw(event.stage.capitalize(), event.bytes_downloaded, event.bytes_total, amount)
            case Reading() if event.tokens_read < event.tokens_total:
                amount = f"{event.tokens_read} of {event.tokens_total} tokens"
                self._draw("Reading prompt", event.tokens_read, event.tokens_total, amount)
            case _:
                self.hide()

    def _draw(self, what: str, done: int, total: int, amount: str) -> None:
        if self._progress is None:
            # No refresh thread: only events change the bar. sys.stderr is not redirected: everything written there goes
            # through Terminal, which hides the bar first.
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(30),
                TextColumn("{task.fields[amount]}"),
                console=self._console,
                transient=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._progress.add_task(what, total=total, amount=amount)
            self._progress.start()
        assert self._task is not None
        self._progress.update(self._task, description=what, completed=done, total=total, amount=amount)
        now = time.monotonic()
        if now - self._drawn_at >= DRAW_SECONDS or done >= total:
            self._progress.refresh()
            self._drawn_at = now

    def hide(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
