"""Redis goes away and comes back, with its append-only file: workers reconnect, work is finished."""

import pytest

from tests.doubles.process import OllamaProcess
from tests.support.accepting import Accepting
from tests.support.assertions import assert_vectors
from tests.support.celery_client import PlainClient
from tests.support.fixtures import require_redis
from tests.support.fleet import open_fleet
from tests.support.polling import eventually
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess

TASK = "generate_embedding"


@pytest.fixture
def durable_fleet(double: OllamaProcess):
    require_redis()
    with RedisProcess(durable=True) as redis, open_fleet(redis, double) as fleet:
        yield fleet


def results_of(fleet, tasks):
    """Read them with a client that has seen no outage."""
    with PlainClient(fleet.redis.url) as plain:
        return [plain.app.AsyncResult(task.id).get(timeout=60) for task in tasks]


def test_idle_workers_reconnect_after_a_restart_of_redis(durable_fleet):
    worker = durable_fleet.start()
    durable_fleet.redis.kill()
    worker.wait_for("pulse_step_failed")
    durable_fleet.redis.restart()
    [result] = results_of(durable_fleet, [durable_fleet.plain.send(TASK, ["a"])])
    assert_vectors(result, ["a"])
    assert not worker.is_over


def test_busy_workers_finish_their_tasks_after_a_restart_of_redis(durable_fleet):
    """Accepted tasks: one whose message was just on its way is lost with the connection, and published again."""
    durable_fleet.double.behaviour("slow", delay_ms=100)
    worker = durable_fleet.start(WORKER__CONCURRENCY=4)
    with Accepting(durable_fleet) as accepting:
        messages = [accepting.accept([f"t{n}", "common"]) for n in range(60)]
        for message in messages:
            accepting.publish(message)
        eventually(lambda: durable_fleet.double.stats()["requests"] >= 4)
        durable_fleet.redis.kill()
        worker.wait_for("pulse_step_failed")
        durable_fleet.redis.restart()
        for n, result in enumerate(results_of(durable_fleet, map(accepting.result, messages))):
            assert_vectors(result, [f"t{n}", "common"])
        eventually(accepting.has_forgotten)
    assert not worker.is_over


def test_results_computed_meanwhile_are_not_lost(durable_fleet):
    """The task ends while Redis is away: its result is stored once Redis is back."""
    durable_fleet.double.behaviour("hang")
    worker = durable_fleet.start(EMBEDDINGS__BACKENDS__main__TIMEOUT=0.3)
    tasks = [durable_fleet.plain.send(TASK, [f"t{n}"]) for n in range(3)]
    eventually(lambda: durable_fleet.double.stats()["requests"])
    durable_fleet.redis.kill()
    durable_fleet.double.behaviour("ok")
    eventually(lambda: durable_fleet.double.stats()["texts_embedded"] >= 3)
    worker.wait_for("pulse_step_failed")
    durable_fleet.redis.restart()
    for n, result in enumerate(results_of(durable_fleet, tasks)):
        assert_vectors(result, [f"t{n}"])
    assert not worker.is_over


def test_results_computed_while_redis_is_silent_are_stored_later(durable_fleet):
    """Silent for longer than a call to a store may take, several times over."""
    durable_fleet.double.behaviour("slow", delay_ms=500)
    worker = durable_fleet.start(STORES__TIMEOUT=0.3)
    tasks = [durable_fleet.plain.send(TASK, [f"t{n}"]) for n in range(3)]
    eventually(lambda: durable_fleet.double.stats()["requests"])
    with durable_fleet.redis.frozen():
        eventually(lambda: worker.output.count("Connection to Redis lost") >= 3 * len(tasks))
    for n, result in enumerate(results_of(durable_fleet, tasks)):
        assert_vectors(result, [f"t{n}"])
    assert not worker.is_over


def test_results_computed_while_redis_is_full_are_stored_later(durable_fleet):
    durable_fleet.double.behaviour("slow", delay_ms=500)
    worker = durable_fleet.start()
    tasks = [durable_fleet.plain.send(TASK, [f"t{n}"]) for n in range(3)]
    eventually(lambda: durable_fleet.double.stats()["requests"])
    with durable_fleet.redis.client() as store:
        store.config_set("maxmemory", 1)
        eventually(lambda: worker.output.count("Connection to Redis lost") >= len(tasks))
        store.config_set("maxmemory", 0)
    for n, result in enumerate(results_of(durable_fleet, tasks)):
        assert_vectors(result, [f"t{n}"])
    assert not worker.is_over


def test_a_worker_starts_before_its_redis(durable_fleet):
    durable_fleet.redis.kill()
    with WorkerProcess(durable_fleet.redis.url, durable_fleet.double.url, wait=False) as worker:
        eventually(lambda: "Cannot connect to" in worker.output or worker.is_over)
        durable_fleet.redis.restart()
        worker.wait_for("worker_ready")
        [result] = results_of(durable_fleet, [durable_fleet.plain.send(TASK, ["a"])])
        assert_vectors(result, ["a"])


def test_an_emptied_redis_is_used_again(durable_fleet):
    """Everything is gone at once, the worker's own registration included."""
    worker = durable_fleet.start()
    durable_fleet.redis.flush()
    assert_vectors(durable_fleet.plain.call(TASK, ["a"]), ["a"])
    with durable_fleet.redis.client() as store:
        eventually(lambda: store.hlen("citadel:workers") == 1)
    assert not worker.is_over
