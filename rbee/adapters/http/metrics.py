"""Renders figures for Prometheus."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Gauge(NamedTuple):
    """A figure that goes up and down; `values` is label value → figure, with the key "" where there is no label."""

    name: str
    documentation: str
    label: str | None
    values: Mapping[str, float]


class Counter(Gauge):
    """A figure that only rises, with the fields of a gauge; its name gets `_total` at the end."""


def count(labels: Iterable[str]) -> dict[str, float]:
    """Count equal labels."""
    return {label: float(number) for label, number in collections.Counter(labels).items()}


def render(*figures: Gauge) -> bytes:
    """Return the figures in the text format of Prometheus."""
    # Imported here because a daemon that nobody scrapes need not hold it in memory.
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Figures(Collector):
        def collect(self) -> Iterator[Metric]:
            for figure in figures:
                kind = CounterMetricFamily if isinstance(figure, Counter) else GaugeMetricFamily
                family = kind(figure.name, figure.documentation, labels=[figure.label] if figure.label else [])
                for label, value in figure.values.items():
                    family.add_metric([label] if figure.label else [], value)
                yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures())
    return generate_latest(registry)
