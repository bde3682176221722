"""Metrics of tasks: each outcome is counted once, whatever happens to the worker."""

import pytest

from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from citadel_common.tasks.stats import STATS
from tests.integration.monitoring.exporter import Exporter
from tests.support.polling import eventually

TASK = "generate_embedding"
QUEUE = "embeddings"
NEVER = 3600
PATIENT = 60
"""Seconds a worker waits for the cache, so that a busy machine makes no errors of misses."""


@pytest.fixture
def exporter(fleet):
    with Exporter(fleet.redis.url) as exporter:
        yield exporter


@pytest.fixture
def producer(fleet):
    """Yield the app of a Citadel producer."""
    app = create_app(CommonSettings(broker_url=fleet.redis.url))
    yield app
    app.close()


def ended(exporter):
    """Return the counts of the task's outcomes, without zeros."""
    return {
        outcome: n
        for outcome, n in exporter.scrape().by("outcome", "tasks_ended_total", queue=QUEUE, task=TASK).items()
        if n
    }


def test_two_workers_count_together_and_waits_are_those_of_our_producers(fleet, exporter, producer):
    for _ in range(2):
        fleet.start(WORKER__CONCURRENCY=2, CACHE__TIMEOUT=PATIENT)
    for number in range(20):
        fleet.plain.send(TASK, f"plain {number}")
    for number in range(10):
        producer.send_task(TASK, args=[f"ours {number}"])
    eventually(lambda: ended(exporter) == {"succeeded": 30})
    scrape = exporter.scrape()
    assert scrape.value("task_runtime_seconds_count", queue=QUEUE, task=TASK) == 30
    assert scrape.value("task_runtime_seconds_sum", queue=QUEUE, task=TASK) > 0
    assert scrape.value("task_queue_wait_seconds_count", queue=QUEUE, task=TASK) == 10
    eventually(lambda: exporter.scrape().value("cache_misses_total") == 30)


def test_failures_and_dead_letters_are_counted_by_code(fleet, exporter):
    fleet.start()
    fleet.plain.send(TASK, "good")
    fleet.plain.send(TASK, 7)
    fleet.plain.send("no_such_task")
    eventually(lambda: ended(exporter) == {"succeeded": 1, "failed": 1})
    scrape = eventually(lambda: (found := exporter.scrape()).by("code", "put_aside_total", queue=QUEUE) and found)
    assert scrape.value("task_failures_total", queue=QUEUE, task=TASK, code="invalid_input") == 1
    assert scrape.value("put_aside_total", queue=QUEUE, code="undecodable_message") == 1
    assert scrape.value("dead_letters", queue=QUEUE, code="undecodable_message") == 1


def test_each_attempt_of_a_task_that_becomes_a_dead_letter_is_counted(fleet, exporter, producer):
    fleet.double.behaviour("dead")
    fleet.start(WORKER__RETRY__MAX_RETRIES=2, EMBEDDINGS__PATIENCE=0.1)
    producer.send_task(TASK, args=["a"])
    eventually(lambda: ended(exporter) == {"retried": 2, "dead_lettered": 1})
    scrape = exporter.scrape()
    assert scrape.by("code", "task_failures_total", queue=QUEUE, task=TASK) == {"backend_unavailable": 1}
    assert scrape.value("task_queue_wait_seconds_count", queue=QUEUE, task=TASK) == 3


def test_counts_of_a_killed_worker_are_kept_and_another_goes_on(fleet, exporter):
    doomed = fleet.start()
    for number in range(5):
        fleet.plain.call(TASK, f"before {number}")
    eventually(lambda: ended(exporter) == {"succeeded": 5})
    fleet.double.behaviour("hang")
    fleet.plain.send(TASK, "held")
    eventually(lambda: exporter.scrape().value("queue_running_tasks", queue=QUEUE) == 1)
    doomed.kill()
    fleet.double.reset()
    assert ended(exporter) == {"succeeded": 5}
    fleet.start()
    eventually(lambda: ended(exporter) == {"succeeded": 6})


def test_a_worker_flushes_its_counts_when_it_stops(fleet, exporter):
    """No heartbeat, which would flush them too, comes before the stop."""
    worker = fleet.start(WORKER__HEARTBEAT_INTERVAL=NEVER)
    for number in range(3):
        fleet.plain.call(TASK, f"text {number}")
    assert ended(exporter) == {}
    worker.terminate()
    assert ended(exporter) == {"succeeded": 3}


def test_unreadable_fields_of_the_hash_are_ignored(fleet, exporter):
    with fleet.redis.client() as client:
        client.hset(STATS, mapping={"x": "1", f"{TASK} ended succeeded": "nonsense", f"{TASK} ended failed": "2"})
    assert ended(exporter) == {"failed": 2}
