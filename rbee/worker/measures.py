"""Counts what the worker does, for `/metrics`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rbee.errors import RbeeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from rbee.wire.worker import StopReason
    from rbee.worker.status import Status

STATES = ("loading", "idle", "busy", "draining", "failed")


class Measures:
    """Plain numbers, turned into Prometheus' format only when somebody asks."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._requests: Counter[str] = Counter()
        self._prompt_tokens = 0
        self._generated_tokens = 0

    def ended(self, outcome: StopReason | RbeeError, *, prompt: int, generated: int) -> None:
        """Count a request that had a slot, and its tokens."""
        self._requests[outcome.code.lower() if isinstance(outcome, RbeeError) else outcome] += 1
        self._prompt_tokens += prompt
        self._generated_tokens += generated

    def refused(self, error: RbeeError) -> None:
        """Count a request that got no slot."""
        self._requests[error.code.lower()] += 1

    def render(self) -> bytes:
        """Return the numbers as Prometheus text."""
        # 30 ms and 4 MB that most workers never need.
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.registry import Collector

        measures = self

        class Numbers(Collector):
            def collect(self) -> Iterator[Metric]:
                yield from measures._families()

        registry = CollectorRegistry()
        registry.register(Numbers())
        return generate_latest(registry)

    def _families(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        requests = CounterMetricFamily("rbee_worker_requests", "Inference requests by outcome.", labels=["outcome"])
        for outcome, count in sorted(self._requests.items()):
            requests.add_metric([outcome], count)
        yield requests
        yield CounterMetricFamily("rbee_worker_prompt_tokens", "Tokens of prompts.", value=self._prompt_tokens)
        yield CounterMetricFamily("rbee_worker_generated_tokens", "Tokens generated.", value=self._generated_tokens)
        yield GaugeMetricFamily("rbee_worker_slots", "Requests served at once.", value=self._status.slots_total)
        yield GaugeMetricFamily("rbee_worker_slots_busy", "Slots that are taken.", value=self._status.slots_busy)
        states = GaugeMetricFamily("rbee_worker_state", "1 for the worker's state.", labels=["state"])
        for state in STATES:
            states.add_metric([state], float(state == self._status.state))
        yield states
