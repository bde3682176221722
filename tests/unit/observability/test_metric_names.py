"""Queries use only metrics and labels that the code exports."""

import pytest

from tests.unit.observability.catalogue import citadel, known
from tests.unit.observability.files import dashboard_queries, rule_queries, variable_metrics
from tests.unit.observability.queries import matched_labels, metrics_of

QUERIES = [pytest.param(query, id=where) for where, query in (*dashboard_queries(), *rule_queries())]


@pytest.mark.parametrize("query", QUERIES)
def test_every_queried_metric_exists(query):
    assert metrics_of(query)
    assert metrics_of(query) <= known()


@pytest.mark.parametrize("query", QUERIES)
def test_every_matched_label_is_one_of_the_metric(query):
    labels = citadel()
    wrong = [(metric, label) for metric, label in matched_labels(query) if label not in (labels.get(metric) or {label})]
    assert not wrong


@pytest.mark.parametrize(("metric", "label"), [pytest.param(m, n, id=where) for where, m, n in variable_metrics()])
def test_choices_are_labels_of_metrics(metric, label):
    assert metric in known()
    assert label in (citadel().get(metric) or {label})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('sum by (queue) (rate(a_total{code!~"x|y"}[5m])) / b > 0', {"a_total", "b"}),
        ("a unless a offset 5m or increase(c[5m])", {"a", "c"}),
        ("histogram_quantile(0.95, sum by (le) (rate(d_bucket[$__rate_interval])))", {"d_bucket"}),
        ('max by (kind) (level:e:sum{lane="batch"}) * 1e3', {"level:e:sum"}),
        ("vector(0)", set()),
    ],
)
def test_metric_names_are_found_in_queries(query, expected):
    assert metrics_of(query) == expected
