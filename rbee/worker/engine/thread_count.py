"""Decides how many threads compute a step, from how much processor time they really got (PURE)."""

from __future__ import annotations

from typing import Final

WINDOW_SECONDS: Final = 0.3
"""Compute time after which the figures of a crew are judged."""
CROWDED: Final = 0.8
"""Share of the processors below which threads must have been displaced: those that wait spin, so they use theirs."""
TRIAL_SECONDS: Final = 5.0
LONGEST_TRIAL_SECONDS: Final = 80.0
"""Compute time between two trials of a larger crew, at first, and after many that failed: each doubles it."""
TRIAL_STEPS: Final = 6
GAIN: Final = 1.1
"""How much faster a larger crew has to be to stay."""


class Crew:
    """A number of threads from 1 to `most`; it shrinks when other programs displace threads, and tries to grow again.

    All threads meet at a barrier after each operation. One that was displaced by another program holds all others up
    for a time slice, some hundred times a token, so on a busy machine fewer threads are much faster than many.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.threads = most
        self._wall = self._cpu = 0.0
        self._steps = 0
        self._seconds_per_step: float | None = None
        self._since_trial = 0.0
        self._pause = TRIAL_SECONDS
        self._trial_from: int | None = None

    def __repr__(self) -> str:
        trial = "" if self._trial_from is None else f", on trial against {self._trial_from}"
        return f"<Crew of {self.threads}{trial}>"

    def observe(self, wall: float, cpu: float) -> None:
        """Learn from a step of one token a sequence that took `wall` seconds and `cpu` of the process's own time."""
        self._wall += wall
        self._cpu += cpu
        self._steps += 1
        self._since_trial += wall
        if self._trial_from is not None:
            self._judge_trial()
        elif self._wall >= WINDOW_SECONDS:
            self._judge_window()

    def _judge_window(self) -> None:
        share = self._cpu / (self._wall * self.threads)
        self._seconds_per_step = self._wall / self._steps
        if self.threads > 1 and share < CROWDED:
            # As many as had a processor to themselves.
            self._change(max(1, min(self.threads - 1, int(self.threads * share + 0.1))))
            self._since_trial = 0.0
        elif self.threads < self.most and self._since_trial >= self._pause:
            before = self.threads
            self._change(min(self.most, before * 2))
            self._trial_from = before
        else:
            self._wall = self._cpu = 0.0
            self._steps = 0

    def _judge_trial(self) -> None:
        """End a trial early when it has cost too much, and otherwise once there are steps enough to compare."""
        assert self._seconds_per_step is not None
        assert self._trial_from is not None
        expected = self._seconds_per_step * TRIAL_STEPS
        if self._steps < TRIAL_STEPS and self._wall <= expected:
            return
        if self._wall / self._steps * GAIN > self._seconds_per_step:
            self._change(self._trial_from)
            self._pause = min(self._pause * 2, LONGEST_TRIAL_SECONDS)
        else:
            self._pause = TRIAL_SECONDS
        self._trial_from = None
        self._since_trial = 0.0
        self._wall = self._cpu = 0.0
        self._steps = 0

    def _change(self, threads: int) -> None:
        self.threads = threads
        self._wall = self._cpu = 0.0
        self._steps = 0
