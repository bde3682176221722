"""Samples of task statistics: every registered task, bounded labels, cumulated histograms."""

from prometheus_client.parser import text_string_to_metric_families

from citadel_contracts import TASKS
from citadel_monitoring.exporter.metrics import ALL, families
from citadel_monitoring.exporter.tasks import dead_letter_samples, task_samples
from tests.unit.monitoring.exporter.scrapes import text_of

TASK = "generate_embedding"
QUEUE = "embeddings"


def samples_of(samples):
    text = text_of(families(samples))
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_task_that_never_ran_has_rows():
    found = samples_of(task_samples([]))
    for spec in TASKS:
        assert found["citadel_tasks_ended_total", *sorted([spec.name, spec.queue.value, "failed"])] == 0
        assert found["citadel_task_runtime_seconds_count", *sorted([spec.name, spec.queue.value])] == 0


def test_unregistered_labels_are_left_out():
    stored = [
        (("evil", "ended", "succeeded"), 1.0),
        ((TASK, "ended", "evil"), 1.0),
        ((TASK, "failures", "evil"), 1.0),
        ((TASK, "runtime", "evil"), 1.0),
        (("evil", "dead_letters", "internal"), 1.0),
        ((TASK, "failures", "bad_vector"), 2.0),
    ]
    found = samples_of(task_samples(stored))
    assert not [labels for labels in found if "evil" in labels]
    assert found["citadel_task_failures_total", "bad_vector", QUEUE, TASK] == 2
    assert found["citadel_task_failures_total", QUEUE, TASK, "other"] == 1


def test_histograms_are_cumulated_and_include_other_bounds():
    """0.07 is not a bound of this version: a worker of an older version may still run."""
    stored = [
        ((TASK, "wait", "0.05"), 1.0),
        ((TASK, "wait", "0.07"), 2.0),
        ((TASK, "wait", "inf"), 4.0),
        ((TASK, "wait", "sum"), 9000.5),
    ]
    found = samples_of(task_samples(stored))
    buckets = {
        bound: found["citadel_task_queue_wait_seconds_bucket", bound, QUEUE, TASK] for bound in ("0.025", "0.05", "0.1")
    }
    assert buckets == {"0.025": 0, "0.05": 1, "0.1": 3}
    assert found["citadel_task_queue_wait_seconds_bucket", "+Inf", QUEUE, TASK] == 7
    assert found["citadel_task_queue_wait_seconds_count", QUEUE, TASK] == 7
    assert found["citadel_task_queue_wait_seconds_sum", QUEUE, TASK] == 9000.5


def test_dead_letters_of_unknown_queues_and_codes_are_counted_together():
    counts = {
        ("embeddings", "bad_vector"): 2,
        ("evil", "bad_vector"): 1,
        ("embeddings", "e1"): 3,
        ("embeddings", "e2"): 4,
    }
    found = samples_of(dead_letter_samples(counts))
    assert found["citadel_dead_letters", "bad_vector", "embeddings"] == 2
    assert found["citadel_dead_letters", "bad_vector", "other"] == 1
    assert found["citadel_dead_letters", "embeddings", "other"] == 7


def test_metric_names_follow_the_conventions_of_prometheus():
    for metric in ALL:
        assert metric.name.startswith("citadel_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
    assert len({metric.name for metric in ALL}) == len(ALL)
