"""Celery's remote control: a plain client sees the workers, changes nothing but revokes, and does no harm."""

import base64
import json
import threading
from contextlib import contextmanager

import pytest
from celery.events.state import State
from celery.exceptions import TaskRevokedError

from tests.support.celery_client import TIMEOUT, PlainClient
from tests.support.planted import TEXT
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess

TASK = "generate_embedding"
CHANNEL = "/0.celery.pidbox"
REFUSED = {
    "pool_grow": {"n": 3},
    "pool_shrink": {"n": 3},
    "pool_restart": {},
    "autoscale": {"max": 9, "min": 1},
    "shutdown": {},
    "add_consumer": {"queue": "monitoring"},
    "cancel_consumer": {"queue": "embeddings"},
    "rate_limit": {"task_name": TASK, "rate_limit": "1/h"},
    "time_limit": {"task_name": TASK, "soft": 0.001, "hard": 0.001},
    "election": {"id": "1", "topic": "t"},
    "enable_events": {},
    "no such command": {},
}


@pytest.fixture(autouse=True)
def fresh(worker, double):
    """A worker, a healthy double."""


@pytest.fixture
def ask(plain):
    """Return the one worker's answer to a command."""

    def ask(command, **arguments):
        answers = plain.app.control.broadcast(command, arguments=arguments, reply=True, timeout=TIMEOUT, limit=1)
        [(name, answer)] = answers[0].items()
        assert name.startswith("embeddings@")
        return answer

    return ask


@pytest.fixture
def busy(plain, double):
    """Yield a task that runs, and one that waits for it, both with a text that nobody may see."""
    double.behaviour("hang")
    task = plain.send(TASK, TEXT, cache_enabled=False)
    eventually(lambda: double.stats()["requests"])
    yield task
    double.behaviour("ok")
    task.revoke()


def test_a_worker_answers_a_ping(ask, plain):
    assert ask("ping") == {"ok": "pong"}
    inspect = plain.app.control.inspect(limit=1, timeout=TIMEOUT)
    [(name, answer)] = inspect.ping().items()
    assert answer == {"ok": "pong"}
    destined = plain.app.control.inspect(destination=[name], timeout=TIMEOUT)
    assert destined.ping() == {name: {"ok": "pong"}}


def test_running_tasks_are_shown_without_their_arguments(ask, busy):
    [task] = [each for each in ask("active") if each["id"] == busy.id]
    assert (task["name"], task["type"], task["delivery_info"]["routing_key"]) == (TASK, TASK, "embeddings")
    assert task["time_start"] > 0
    state, info = ask("query_task", ids=[busy.id])[busy.id]
    assert (state, info["id"]) == ("active", busy.id)
    assert TEXT not in json.dumps([ask("active"), ask("reserved"), ask("scheduled"), ask("query_task", ids=busy.id)])


def test_what_a_worker_is_and_serves_is_shown(ask):
    stats = ask("stats")
    assert stats["pool"]["max-concurrency"] >= stats["pool"]["threads"] >= 0
    assert stats["pid"] > 0
    assert stats["prefetch_count"] > 0
    assert stats["total"].keys() <= {TASK}
    assert [queue["name"] for queue in ask("active_queues")] == ["embeddings"]
    assert {TASK, "batch_generate_embeddings"} <= set(ask("registered"))
    assert "celery:" in ask("report")["ok"]


def test_no_answer_shows_a_secret(ask, redis_server):
    answers = [ask(command) for command in ("conf", "stats", "report", "active_queues", "revoked")]
    answers.append(ask("registered", taskinfoitems=["app", "backend", "request", "rate_limit"]))
    assert ask("conf")["worker_pool"] == "threads"
    assert redis_server.password not in json.dumps(answers)


@pytest.mark.parametrize("command", REFUSED)
def test_a_command_that_would_change_the_worker_is_refused(ask, plain, command):
    assert ask(command, **REFUSED[command])["error"]
    assert plain.call(TASK, "still works")["success"]


def test_arguments_that_do_not_fit_are_refused(ask):
    assert "arguments" in ask("revoke", state=1, self=2)["error"]
    assert ask("revoke")["error"]
    assert ask("revoke", task_id={"a": 1})["error"]
    assert ask("revoke", task_id=[1, None, "", "x" * 5000])["error"]
    assert ask("revoke_by_stamped_headers", headers="nonsense")["error"]
    assert ask("revoke_by_stamped_headers", headers=["customer=none"])["ok"]


def test_hostile_commands_end_neither_the_worker_nor_its_listening(ask, plain, store, worker):
    body = base64.b64encode(b'{"method": "ping", "arguments": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}").decode()
    deep = json.dumps({"body": body, "content-type": "application/json", "properties": {"body_encoding": "base64"}})
    hostile = [
        b"\x80\x04\x95",
        b"",
        b"no JSON",
        b"[" * 100_000,
        b'{"body": 7}',
        deep.encode(),
        b'"' + b"x" * (9 * 2**20) + b'"',
        b'"' + b"x" * (40 * 2**20) + b'"',  # more than Redis sends to a subscriber: it closes the connection
    ]
    for data in hostile:
        store.publish(CHANNEL, data)
    eventually(lambda: dict(store.pubsub_numsub(CHANNEL))[CHANNEL.encode()] == 1)
    assert ask("ping") == {"ok": "pong"}
    assert plain.call(TASK, "still works")["success"]
    assert not worker.events("control_crashed")
    assert not worker.events("remote_control_crashed")


def test_answers_that_nobody_fetches_expire(store, ask):
    message = {"method": "ping", "arguments": {}, "ticket": "t"}
    message["reply_to"] = {"exchange": "reply.celery.pidbox", "routing_key": "nobody"}
    whole = {"body": json.dumps(message), "content-type": "application/json", "properties": {}, "headers": {}}
    store.publish(CHANNEL, json.dumps(whole))
    assert eventually(lambda: store.llen("nobody.reply.celery.pidbox")) == 1
    assert 0 < store.ttl("nobody.reply.celery.pidbox") <= 60
    assert ask("ping")
    assert not store.exists("_kombu.binding.celery.pidbox")


def test_workers_send_heartbeats_and_no_events_of_tasks(plain):
    with captured(plain) as (state, events):
        eventually(lambda: [worker for worker in state.workers.values() if worker.alive])
        assert plain.call(TASK, "unseen")["success"]
        eventually(lambda: [event for event in events if event["processed"]])
    assert {event["type"] for event in events} <= {"worker-online", "worker-heartbeat"}


def test_events_of_tasks_are_sent_where_a_setting_asks_for_them(redis_server, double):
    url = redis_server.database(1)  # without the other worker
    with PlainClient(url) as plain, captured(plain) as (state, events):
        with WorkerProcess(url, double.url, WORKER__TASK_EVENTS="true"):
            task = plain.app.send_task(TASK, [TEXT], queue="embeddings", argsrepr=TEXT, kwargsrepr=TEXT)
            assert task.get(timeout=TIMEOUT)["success"]
            eventually(lambda: task.id in state.tasks and state.tasks[task.id].state == "SUCCESS")
            assert plain.app.control.ping(timeout=TIMEOUT, limit=1)
        assert TEXT not in json.dumps(events)


@contextmanager
def captured(plain: PlainClient):
    """Collect the events of the workers, as Flower does."""
    state, events = State(), []

    def receive(event):
        events.append(event)
        state.event(event)

    with plain.app.connection_for_read() as connection:
        receiver = plain.app.events.Receiver(connection, handlers={"*": receive})
        thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
        thread.start()
        try:
            yield state, events
        finally:
            receiver.should_stop = True
            thread.join()


def test_a_subscription_that_is_cut_off_comes_back_and_the_consumer_does_not_notice(ask, plain, store, worker):
    store.client_kill_filter(_type="pubsub")
    eventually(lambda: dict(store.pubsub_numsub(CHANNEL))[CHANNEL.encode()] == 1)
    assert ask("ping") == {"ok": "pong"}
    assert plain.call(TASK, "still works")["success"]
    assert "Connection to broker lost" not in worker.output


def test_a_worker_answers_after_its_redis_came_back(double):
    with RedisProcess() as redis, WorkerProcess(redis.url, double.url):
        redis.kill()
        redis.restart()
        with PlainClient(redis.url) as plain:
            eventually(lambda: plain.app.control.ping(timeout=0.5))
            assert plain.call(TASK, "after")["success"]


def test_a_revoke_that_a_worker_missed_is_learned_from_the_broker(plain, store, double):
    """Another worker has heard of it: it is in the broker, and was never announced here."""
    double.behaviour("hang")
    task = plain.send(TASK, "missed")
    eventually(lambda: double.stats()["requests"])
    store.zadd("citadel:revoked", {task.id: store.time()[0] + 3 * 3600})
    with pytest.raises(TaskRevokedError):
        task.get(timeout=TIMEOUT)
    assert task.state == "REVOKED"
