"""Figures in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from rbee.adapters.http import metrics


def test_what_is_rendered_is_read_back() -> None:
    text = metrics.render(
        metrics.Gauge("rbee_workers", "Workers by state", "state", {"idle": 2.0, 'o"d\nd\\': 1.0}),
        metrics.Gauge("rbee_slots", "Slots", None, {"": 7}),
        metrics.Gauge("rbee_none", "Nothing yet", "state", {}),
    ).decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(found) == {"rbee_workers", "rbee_slots", "rbee_none"}
    assert {sample.labels["state"]: sample.value for sample in found["rbee_workers"].samples} == {
        "idle": 2.0,
        'o"d\nd\\': 1.0,
    }
    assert [(sample.labels, sample.value) for sample in found["rbee_slots"].samples] == [({}, 7.0)]
    assert found["rbee_workers"].documentation == "Workers by state"
    assert {family.type for family in found.values()} == {"gauge"}


def test_a_counter_is_told_from_a_gauge() -> None:
    text = metrics.render(metrics.Counter("rbee_requests", "By outcome", "outcome", {"eos": 2})).decode()
    assert "# TYPE rbee_requests_total counter" in text
    assert 'rbee_requests_total{outcome="eos"} 2.0' in text.splitlines()


def test_equal_labels_are_counted() -> None:
    assert metrics.count(["idle", "busy", "idle"]) == {"idle": 2.0, "busy": 1.0}
    assert metrics.count([]) == {}


def test_rendering_twice_shares_nothing() -> None:
    first = metrics.render(metrics.Gauge("a", "A", None, {"": 1}))
    assert metrics.render(metrics.Gauge("b", "B", None, {"": 1})).count(b"# HELP") == 1
    assert b"a 1.0" in first
