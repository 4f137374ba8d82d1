"""Renders figures for Prometheus."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PATH: Final = "/metrics"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Gauge(NamedTuple):
    """A figure that goes up and down; `values` is label value → figure, with the key "" where there is no label."""

    name: str
    documentation: str
    label: str | None
    values: Mapping[str, float]


def count(labels: Iterable[str]) -> dict[str, float]:
    """Count equal labels."""
    return {label: float(number) for label, number in Counter(labels).items()}


def render(*gauges: Gauge) -> bytes:
    """Return the figures in the text format of Prometheus."""
    # Imported here because a daemon that nobody scrapes need not hold it in memory.
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Figures(Collector):
        def collect(self) -> Iterable[GaugeMetricFamily]:
            for gauge in gauges:
                family = GaugeMetricFamily(gauge.name, gauge.documentation, labels=[gauge.label] if gauge.label else [])
                for label, value in gauge.values.items():
                    family.add_metric([label] if gauge.label else [], value)
                yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures())
    return generate_latest(registry)
