"""Counts what the worker does, for `/metrics`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from rbee.adapters.http import metrics
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rbee.wire.worker import StopReason
    from rbee.worker.status.status import Status

STATES: Final = ("loading", "idle", "busy", "draining", "failed")


class WorkerMetrics:
    """Plain numbers, turned into Prometheus' format only on request."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._requests: Counter[str] = Counter()
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._cached_tokens = 0
        self.of_prefixes: Callable[[], list[metrics.Gauge]] = list
        """What the store of prompts tells, once there is one."""

    def ended(self, outcome: StopReason | RbeeError, *, prompt: int, generated: int, cached: int = 0) -> None:
        """Count a request that had a slot, and its tokens."""
        self._requests[outcome.code.lower() if isinstance(outcome, RbeeError) else outcome] += 1
        self._prompt_tokens += prompt
        self._generated_tokens += generated
        self._cached_tokens += cached

    def refused(self, error: RbeeError) -> None:
        """Count a request that got no slot."""
        self._requests[error.code.lower()] += 1

    def render(self) -> bytes:
        now = self._status.now
        states = {state: float(state == now.state) for state in STATES}
        requests = dict(sorted(self._requests.items()))
        return metrics.render(
            metrics.Counter("rbee_worker_requests", "Inference requests by outcome.", "outcome", requests),
            metrics.Counter("rbee_worker_prompt_tokens", "Tokens of prompts.", None, {"": self._prompt_tokens}),
            metrics.Counter(
                "rbee_worker_cached_tokens",
                "Tokens of prompts that were known already.",
                None,
                {"": self._cached_tokens},
            ),
            metrics.Counter("rbee_worker_generated_tokens", "Tokens generated.", None, {"": self._generated_tokens}),
            metrics.Gauge("rbee_worker_slots", "Requests served at once.", None, {"": now.slots_total}),
            metrics.Gauge("rbee_worker_slots_busy", "Slots that are taken.", None, {"": now.slots_busy}),
            metrics.Gauge("rbee_worker_state", "1 for the worker's state.", "state", states),
            *self.of_prefixes(),
        )
