"""Metrics: declared, bounded, with exemplars."""

import re

import pytest

from citadel_common.telemetry import names, spans, tracing
from citadel_common.telemetry.prometheus import MOST_SERIES, PrometheusMetrics
from tests.support.spans_in_memory import spans_in_memory

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def metrics(monkeypatch):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    return PrometheusMetrics()


def lines_of(metrics, metric, accept="text/plain"):
    body, _ = metrics.render(accept)
    return [line for line in body.decode().splitlines() if line.startswith(metric.name)]


def test_counts_and_observations_are_shown_by_their_declared_names(metrics):
    metrics.count(names.TASKS, 2, task="generate_embedding", outcome="ok")
    metrics.observe(names.TASK_SECONDS, 0.3, task="generate_embedding")
    assert lines_of(metrics, names.TASKS) == ['citadel_tasks_total{outcome="ok",task="generate_embedding"} 2.0']
    assert 'citadel_task_seconds_bucket{le="0.5",task="generate_embedding"} 1.0' in lines_of(
        metrics, names.TASK_SECONDS
    )


def test_a_gauge_stands_where_it_was_set_last(metrics):
    for value in (3, 0, 2):
        metrics.set(names.BREAKERS_OPEN, value, backend="main")
    metrics.set(names.BREAKERS_OPEN, 0, backend="other")
    assert lines_of(metrics, names.BREAKERS_OPEN) == [
        'citadel_breakers_open{backend="main"} 2.0',
        'citadel_breakers_open{backend="other"} 0.0',
    ]


def test_unknown_values_beyond_the_limit_are_one_series(metrics):
    for number in range(MOST_SERIES + 50):
        metrics.count(names.TASKS, 1, task=f"task {number}", outcome="ok")
    lines = lines_of(metrics, names.TASKS)
    assert len(lines) == MOST_SERIES + 1
    assert 'citadel_tasks_total{outcome="other",task="other"} 50.0' in lines


def test_an_observation_within_a_sampled_span_has_its_trace_as_exemplar(metrics):
    with spans_in_memory(), tracing.span(spans.RUN, "workflow") as span:
        metrics.observe(names.TASK_SECONDS, 0.3, task="t")
        trace_id = f"{span.get_span_context().trace_id:032x}"
    metrics.observe(names.TASK_SECONDS, 20, task="t")
    shown = [line for line in lines_of(metrics, names.TASK_SECONDS, OPEN_METRICS) if "# {" in line]
    assert len(shown) == 1
    assert f'trace_id="{trace_id}"' in shown[0]


def test_every_metric_is_declared_with_what_prometheus_wants():
    assert len({metric.name for metric in names.METRICS}) == len(names.METRICS)
    for metric in names.METRICS:
        assert re.fullmatch(r"citadel_[a-z_]+", metric.name)
        assert metric.help
        assert metric.unit
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert not {"id", "run", "text", "key", "model"} & set(metric.labels)
