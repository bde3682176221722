"""Metrics of queues and workers."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from citadel_common.delivery.misrouted import MisroutedList, MisroutedLists
from citadel_common.delivery.queues import SENT_AT_HEADER, lists_of
from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from citadel_contracts import Queue
from tests.integration.monitoring.exporter import Exporter
from tests.support.polling import eventually

TASK = "generate_embedding"
QUEUE = "embeddings"
HOUR = 3600.0


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


def publish(fleet, count, priority):
    for number in range(count):
        fleet.plain.publish(TASK, [f"lane {priority} {number}"], priority=priority)


def backdate(fleet):
    """Change the stamps of the waiting messages that have one as if they had been sent an hour earlier."""
    with fleet.redis.client() as client:
        for name in lists_of(Queue.EMBEDDINGS):
            for index, entry in enumerate(client.lrange(name, 0, -1)):
                message = json.loads(entry)
                if SENT_AT_HEADER in message["headers"]:
                    message["headers"][SENT_AT_HEADER] -= HOUR
                    client.lset(name, index, json.dumps(message))


def oldest(exporter, lane):
    return exporter.scrape().value("queue_oldest_message_age_seconds", queue=QUEUE, lane=lane)


def test_ready_messages_by_lane_unacked_messages_and_workers(fleet, exporter):
    fleet.double.behaviour("hang")
    for _ in range(2):
        fleet.start(WORKER__CONCURRENCY=1)
    publish(fleet, 2, 3)
    eventually(lambda: exporter.scrape().value("queue_running_tasks", queue=QUEUE) == 2)
    for count, priority in ((2, 0), (3, 3), (4, 6), (1, 9)):
        publish(fleet, count, priority)
    lanes = {"interactive": 2, "standard": 3, "batch": 5}
    # A worker that listened when it got its last place gives back what came.
    eventually(lambda: exporter.scrape().by("lane", "queue_ready_messages", queue=QUEUE) == lanes)
    scrape = exporter.scrape()
    assert scrape.value("queue_unacked_messages", queue=QUEUE) == 2
    assert scrape.value("queue_workers", queue=QUEUE) == 2
    assert scrape.value("queue_worker_concurrency", queue=QUEUE) == 2
    for other in set(Queue) - {Queue.EMBEDDINGS}:
        assert scrape.value("queue_unacked_messages", queue=other.value) == 0
        assert set(scrape.by("lane", "queue_ready_messages", queue=other.value).values()) == {0}


def test_a_dead_worker_is_not_counted_and_its_messages_stay_counted(fleet, exporter):
    fleet.double.behaviour("hang")
    doomed, other = fleet.start(WORKER__CONCURRENCY=1), fleet.start(WORKER__CONCURRENCY=1)
    publish(fleet, 5, 3)
    eventually(lambda: exporter.scrape().value("queue_running_tasks", queue=QUEUE) == 2)
    doomed.kill()
    eventually(lambda: exporter.scrape().value("queue_unacked_messages", queue=QUEUE) == 1)
    scrape = exporter.scrape()
    assert scrape.value("queue_workers", queue=QUEUE) == 1
    assert scrape.value("queue_worker_concurrency", queue=QUEUE) == 1
    assert scrape.by("lane", "queue_ready_messages", queue=QUEUE)["standard"] == 4
    other.kill()
    eventually(lambda: exporter.scrape().value("queue_workers", queue=QUEUE) == 0)


def test_every_queue_has_rows_without_workers(fleet, exporter):
    worker = fleet.start()
    eventually(lambda: exporter.scrape().value("queue_workers", queue=QUEUE) == 1)
    assert worker.terminate() == 0
    publish(fleet, 3, 6)
    scrape = exporter.scrape()
    for queue in Queue:
        assert set(scrape.by("lane", "queue_ready_messages", queue=queue.value)) == {"interactive", "standard", "batch"}
        for name in ("queue_workers", "queue_worker_concurrency", "queue_running_tasks", "queue_unacked_messages"):
            assert scrape.value(name, queue=queue.value) == 0
    assert scrape.value("queue_ready_messages", queue=QUEUE, lane="batch") == 3


def test_the_age_of_a_citadel_message_counts_from_its_sending(exporter, producer, fleet):
    assert oldest(exporter, "standard") == 0
    producer.send_task(TASK, args=["a"])
    assert oldest(exporter, "standard") > 0
    backdate(fleet)
    assert HOUR <= oldest(exporter, "standard") < 2 * HOUR
    assert oldest(exporter, "interactive") == 0


def test_the_age_of_a_message_with_a_time_counts_from_that_time(exporter, producer, fleet):
    producer.send_task(TASK, args=["a"], eta=datetime.now(UTC) - timedelta(minutes=10))
    backdate(fleet)
    assert 600 <= oldest(exporter, "standard") < 1200


def test_messages_whose_time_has_not_come_are_counted_apart(fleet, exporter):
    """One that is due is ready, although no worker is there to release it: a queue without workers gets one."""
    worker = fleet.start()
    for seconds in (2, 2, 3600):
        fleet.plain.publish(TASK, ["a"], countdown=seconds)
    eventually(lambda: exporter.scrape().value("queue_scheduled_messages", queue=QUEUE) == 3)
    worker.kill()
    eventually(lambda: exporter.scrape().value("queue_scheduled_messages", queue=QUEUE) == 1)
    assert exporter.scrape().value("queue_ready_messages", queue=QUEUE, lane="interactive") == 2


def test_the_age_is_of_the_message_taken_next_whatever_it_contains(exporter, producer, fleet):
    """Its large text contains what looks like a time of sending; the message behind it is younger."""
    producer.send_task(TASK, args=['"sent_at": 1, ' * 400_000], priority=6)
    fleet.plain.publish(TASK, ["b"], priority=6)
    backdate(fleet)
    assert HOUR <= oldest(exporter, "batch") < 2 * HOUR


def test_the_age_of_a_foreign_message_counts_from_when_it_was_first_seen(fleet, exporter):
    for text in ("a", "b"):
        fleet.plain.publish(TASK, [text], priority=0)
    first = oldest(exporter, "interactive")
    second = eventually(lambda: (age := oldest(exporter, "interactive")) > first + 0.2 and age)
    with fleet.redis.client() as client:
        client.rpop(QUEUE)
        assert oldest(exporter, "interactive") < second
        client.delete(QUEUE)
    assert oldest(exporter, "interactive") == 0


def test_misrouted_messages_are_counted_by_queue_and_reason(fleet, exporter):
    assert exporter.scrape().value("queue_misrouted_messages", queue=QUEUE, reason="key_prefix") == 0
    found = {"database": 0, "queue": QUEUE, "task": TASK, "reason": "key_prefix", "help": "h", "at": 1.0}
    with fleet.redis.client() as client:
        for key, messages in (("a-embeddings", 3), ("b-embeddings", 4)):
            MisroutedLists(client, "scan").add(MisroutedList(key=key, messages=messages, **found))
    scrape = exporter.scrape()
    assert scrape.value("queue_misrouted_messages", queue=QUEUE, reason="key_prefix") == 7
    assert scrape.value("queue_misrouted_messages", queue=QUEUE, reason="separator") == 0


def test_livez_answers_and_sigterm_ends_the_exporter(exporter):
    assert exporter.get("/livez") == "ok\n"
    assert exporter.terminate() == 0
