"""Decides how many threads compute a step, from how much processor time they really got (PURE)."""

from __future__ import annotations

from typing import Final, NamedTuple

WINDOW_STEPS: Final = 8
SHORT_SECONDS: Final = 0.05
"""Steps of single tokens, and compute time, after which a number of threads is judged where it is OBVIOUS."""
WINDOW_SECONDS: Final = 0.3
"""Compute time after which it is judged in any case."""
PROMPT_SECONDS: Final = 0.2
"""Compute time of prompts after which it is."""
CROWDED: Final = 0.8
"""Share of the processors below which threads must have been displaced.

Those that wait spin, and so use theirs; they sleep only where another one has been displaced (build/patch_barrier.py).
"""
OBVIOUS: Final = 0.65
"""The same, where it is clear after a few steps: in those a time slice of another program may take a quarter."""
TRIAL_SECONDS: Final = 0.5
LONGEST_TRIAL_SECONDS: Final = 10.0
"""Compute time between two trials of more threads, at first, and after many that failed: each doubles it."""
TRIAL_STEPS: Final = 6
GAIN: Final = 1.1
"""How much faster more threads have to be to stay."""


class _Trial(NamedTuple):
    """More threads than the `threads` that took `seconds_per_step`."""

    threads: int
    seconds_per_step: float


class ThreadCount:
    """A number of threads from 1 to `most`; it falls when other programs displace threads, and tries to rise again.

    All threads meet at a barrier after each operation. One that was displaced by another program holds all others up
    for a time slice, some hundred times a token, so on a busy machine fewer threads are much faster than many.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.threads = most
        self._wall = self._cpu = self._prompt_wall = self._prompt_cpu = 0.0
        self._steps = 0
        self._since_trial = 0.0
        self._pause = TRIAL_SECONDS
        self._trial: _Trial | None = None

    def __repr__(self) -> str:
        trial = "" if self._trial is None else f", on trial against {self._trial.threads}"
        return f"<ThreadCount {self.threads}{trial}>"

    def observe(self, wall: float, cpu: float) -> None:
        """Learn from a step of one token a sequence that took `wall` seconds and `cpu` of the process's own time."""
        self._wall += wall
        self._cpu += cpu
        self._steps += 1
        self._since_trial += wall
        if self._trial is not None:
            self._judge_trial(self._trial)
        elif self._wall >= WINDOW_SECONDS or (
            self._steps >= WINDOW_STEPS
            and self._wall >= SHORT_SECONDS
            and self._cpu < OBVIOUS * self._wall * self.threads
        ):
            self._judge_window()

    def observe_prompt(self, wall: float, cpu: float) -> None:
        """Learn from a step that read a part of a prompt: how long it takes says nothing, since no two are alike."""
        if self._trial is not None:
            return
        self._since_trial += wall
        self._prompt_wall += wall
        self._prompt_cpu += cpu
        if self._prompt_wall >= PROMPT_SECONDS:
            self._shrink(self._prompt_cpu / (self._prompt_wall * self.threads))
            self._prompt_wall = self._prompt_cpu = 0.0

    def _shrink(self, share: float) -> bool:
        """Take as many threads as had a processor to themselves, where that is not all; returns whether it was not."""
        if self.threads == 1 or share >= CROWDED:
            return False
        self.threads = max(1, min(self.threads - 1, int(self.threads * share + 0.1)))
        self._since_trial = 0.0
        return True

    def _judge_window(self) -> None:
        has_shrunk = self._shrink(self._cpu / (self._wall * self.threads))
        if not has_shrunk and self.threads < self.most and self._since_trial >= self._pause:
            self._trial = _Trial(self.threads, self._wall / self._steps)
            self.threads = min(self.most, self.threads * 2)
        self._start_window()

    def _judge_trial(self, trial: _Trial) -> None:
        """End a trial early when it has cost too much, and otherwise once there are steps enough to compare."""
        if self._steps < TRIAL_STEPS and self._wall <= trial.seconds_per_step * TRIAL_STEPS:
            return
        if self._wall / self._steps * GAIN > trial.seconds_per_step:
            self.threads = trial.threads
            self._pause = min(self._pause * 2, LONGEST_TRIAL_SECONDS)
        else:
            self._pause = TRIAL_SECONDS
        self._trial = None
        self._since_trial = 0.0
        self._start_window()

    def _start_window(self) -> None:
        self._wall = self._cpu = 0.0
        self._steps = 0
