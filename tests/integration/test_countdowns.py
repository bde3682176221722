"""Countdowns and ETAs of a plain Celery client: each task runs once, at its time, whatever dies meanwhile.

Workers, broker and tests share one clock here, so times of ends can be compared with the times that were asked for.
"""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from celery import Celery

from citadel_common.delivery.queues import timer_keys
from citadel_contracts import Queue
from tests.support.accepting import Accepting
from tests.support.celery_client import QUEUE, TIMEOUT, PlainClient, error_of
from tests.support.fixtures import require_redis
from tests.support.fleet import open_fleet
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess

TASK = "generate_embedding"
FRESH = {"cache_enabled": False}
HELD = "citadel:unacked:embeddings*"


@pytest.fixture
def durable_fleet(double):
    require_redis()
    with RedisProcess(durable=True) as redis, open_fleet(redis, double) as fleet:
        yield fleet


@pytest.fixture
def client(fleet):
    with fleet.redis.client() as client:
        yield client


def later(fleet, text, seconds, **options):
    return fleet.plain.publish(TASK, [text], FRESH, countdown=seconds, **options)


def waiting(client):
    return sum(client.zcard(key) for key in timer_keys(Queue.EMBEDDINGS))


def held(client):
    return sum(client.hlen(key) for key in client.keys(HELD) if client.type(key) == b"hash")


def runs_of(fleet):
    """How often the backend was asked for each text."""
    return fleet.double.stats()["embedded_counts"].get("nomic-embed-text", {})


def lateness(result, at):
    """Seconds between the time that was asked for and the task's end."""
    result.get(timeout=TIMEOUT)
    return (result.date_done.replace(tzinfo=UTC) - at).total_seconds()


def test_a_countdown_across_a_restart_of_redis_runs_once(durable_fleet):
    worker = durable_fleet.start()
    at = datetime.now(UTC) + timedelta(seconds=6)
    task = later(durable_fleet, "a", 6)
    with durable_fleet.redis.client() as client:
        eventually(lambda: waiting(client) == 1)
    durable_fleet.redis.kill()
    worker.wait_for("pulse_step_failed")
    durable_fleet.redis.restart()
    with PlainClient(durable_fleet.redis.url) as plain:
        late = lateness(plain.app.AsyncResult(task.id), at)
    assert 0 <= late < 7.5
    assert runs_of(durable_fleet) == {"a": 1}


def test_no_worker_holds_what_waits_and_other_tasks_pass(fleet, client):
    """They are far more than a worker takes at once, and their time may be after any timeout."""
    fleet.start(WORKER__CONCURRENCY=1, WORKER__PREFETCH=1)
    tasks = [later(fleet, f"t{n}", 10**6 + n) for n in range(30)]
    assert fleet.plain.call(TASK, "now", **FRESH)["success"]
    eventually(lambda: waiting(client) == len(tasks) and held(client) == 0)
    assert runs_of(fleet) == {"now": 1}


def test_countdowns_of_a_killed_worker_run_on_another_one(fleet, client):
    worker = fleet.start()
    at = datetime.now(UTC) + timedelta(seconds=3)
    tasks = [later(fleet, f"t{n}", 3) for n in range(20)]
    eventually(lambda: waiting(client) == len(tasks))
    worker.kill()
    fleet.start()
    assert all(0 <= lateness(task, at) < 7.5 for task in tasks)
    assert runs_of(fleet) == {f"t{n}": 1 for n in range(20)}


def test_many_countdowns_run_once_each_at_their_times(fleet, client):
    """Two workers; one is killed while some tasks wait, some lie in a lane and some run."""
    dying, _ = fleet.start(WORKER__CONCURRENCY=4), fleet.start(WORKER__CONCURRENCY=4)
    start = datetime.now(UTC)
    due = [4 + n / 100 for n in range(300)]
    tasks = [later(fleet, f"t{n}", seconds, priority=(0, 3, 9)[n % 3]) for n, seconds in enumerate(due)]
    eventually(lambda: len(runs_of(fleet)) > 50)
    dying.kill()
    ends = [lateness(task, start + timedelta(seconds=seconds)) for task, seconds in zip(tasks, due, strict=True)]
    assert min(ends) >= 0
    counts = runs_of(fleet)
    assert len(counts) == len(tasks)
    # those that the killed worker had begun are delivered once more
    assert sum(counts.values()) <= len(tasks) + 2 * 4
    assert waiting(client) == 0


def test_a_queue_without_workers_keeps_its_countdowns(fleet, client):
    worker = fleet.start()
    tasks = [later(fleet, f"t{n}", 1) for n in range(3)]
    eventually(lambda: waiting(client) == 3)
    worker.kill()
    eventually(lambda: client.zcount(timer_keys(Queue.EMBEDDINGS)[0], 0, client.time()[0]) == 3)
    fleet.start()
    assert all(task.get(timeout=TIMEOUT)["success"] for task in tasks)


def test_a_task_that_expires_before_its_time_is_revoked_when_it_expires(fleet, client):
    fleet.start()
    task = later(fleet, "a", 3600, expires=1)
    eventually(lambda: task.state == "REVOKED")
    assert waiting(client) == 0
    eventually(lambda: held(client) == 0)
    assert runs_of(fleet) == {}


@pytest.mark.parametrize(
    "eta",
    [
        lambda at: at.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat(),
        lambda at: at.astimezone(timezone(timedelta(hours=-11))).isoformat(),
        lambda at: at.replace(tzinfo=None).isoformat(),
        lambda at: at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    ],
    ids=["of India", "of Samoa", "without a zone", "as JavaScript writes it"],
)
def test_an_eta_is_understood_in_every_zone(fleet, eta):
    fleet.start()
    at = datetime.now(UTC) + timedelta(seconds=2)
    assert 0 <= lateness(fleet.plain.publish(TASK, ["a"], eta=eta(at)), at) < 7.5


@pytest.mark.parametrize(
    "settings",
    [{"task_protocol": 1}, {"timezone": "Asia/Kolkata"}, {"timezone": "Asia/Kolkata", "enable_utc": False}],
    ids=["protocol 1", "another zone", "another zone without UTC"],
)
def test_countdowns_of_clients_with_other_settings_run_at_their_time(fleet, client, settings):
    fleet.start()
    with Celery("other", broker=fleet.redis.url, backend=fleet.redis.url, set_as_current=False) as app:
        app.conf.update(settings)
        at = datetime.now(UTC) + timedelta(seconds=2)
        sent = app.send_task(TASK, ["a"], queue=QUEUE, countdown=2)
        eventually(lambda: waiting(client) == 1)
        assert 0 <= lateness(fleet.plain.app.AsyncResult(sent.id), at) < 7.5


@pytest.mark.parametrize("eta", ["0001-01-01T00:00:00", "1969-12-31T23:59:59+14:00", "2001-01-01"])
def test_a_time_that_is_long_past_has_come(fleet, eta):
    fleet.start()
    assert fleet.plain.publish(TASK, ["a"], eta=eta).get(timeout=TIMEOUT)["success"]


@pytest.mark.parametrize("eta", ["9999-12-31T23:59:59.999999-14:00", "9999-12-31T23:59:59"])
def test_the_last_of_all_times_waits(fleet, client, eta):
    fleet.start()
    fleet.plain.publish(TASK, ["a"], eta=eta)
    eventually(lambda: waiting(client) == 1)
    assert fleet.plain.call(TASK, "after it")["success"]


@pytest.mark.parametrize("eta", ["NaN", "tomorrow", "2026-13-45T00:00:00", "1e400"])
def test_an_eta_that_is_no_time_is_refused_at_once(fleet, client, eta):
    fleet.start()
    assert "ETA" in error_of(fleet.plain.publish(TASK, ["a"], eta=eta))
    assert waiting(client) == 0
    eventually(lambda: held(client) == 0)


def test_a_task_that_nobody_has_is_refused_before_its_time(fleet, client):
    fleet.start()
    assert "no task named" in error_of(fleet.plain.publish("unheard_of", [], countdown=3600))
    assert waiting(client) == 0


def test_two_countdowns_with_one_task_id_both_run(fleet, client):
    fleet.start()
    for text in ("a", "b"):
        later(fleet, text, 2, task_id="the same")
    eventually(lambda: waiting(client) == 2)
    eventually(lambda: runs_of(fleet) == {"a": 1, "b": 1})


def test_a_retry_waits_in_the_broker_and_is_not_published_again_meanwhile(fleet, client):
    """The accepted task would be looked for after half a second."""
    fleet.double.behaviour("rate429", retry_after_s=3)
    worker = fleet.start(WORKER__RETRY__CAP=30, EMBEDDINGS__PATIENCE=0.1)
    with Accepting(fleet) as accepting:
        message = accepting.accept(["a"], cache_enabled=False)
        accepting.publish(message)
        eventually(lambda: waiting(client) == 1)
        fleet.double.behaviour("ok")
        eventually(lambda: held(client) == 0)
        assert accepting.result(message).get(timeout=TIMEOUT)["success"]
        eventually(accepting.has_forgotten)
    assert worker.events("accepted_task_republished") == []
