"""Workers die while they work: what they held is finished by others, once, exactly, and soon."""

import signal

import pytest

from citadel_common.delivery.dead_letters import DeadLetters
from citadel_common.delivery.requeue import Requeue
from citadel_common.settings.common import CommonSettings
from citadel_common.tasks.app import create_app
from tests.support.accepting import Accepting
from tests.support.assertions import assert_vectors
from tests.support.celery_client import error_of
from tests.support.planted import TEXT
from tests.support.polling import eventually

TASK = "generate_embedding"


def texts_of(number):
    return [f"{TEXT} {number}", f"also {TEXT} {number}", f"common {TEXT}"]


def held(fleet):
    """How many messages workers hold; only once they are noted does a death not lose them."""
    with fleet.redis.client() as store:
        keys = [key for key in store.keys("citadel:unacked:*") if store.type(key) == b"hash"]
        return sum(store.hlen(key) for key in keys)


def test_another_worker_finishes_the_tasks_of_a_killed_one(fleet):
    fleet.double.behaviour("hang")
    doomed = fleet.start()
    tasks = [fleet.plain.send(TASK, texts_of(n)) for n in range(12)]
    eventually(lambda: fleet.double.stats()["requests"] and held(fleet) == 12)
    fleet.start()
    fleet.double.behaviour("ok")  # before the kill: the other worker's calls must not hang too
    doomed.kill()
    for n, task in enumerate(tasks):
        assert_vectors(task.get(timeout=60), texts_of(n))
    eventually(lambda: not held(fleet))


def test_a_worker_started_afterwards_finishes_the_tasks_of_a_killed_one(fleet):
    fleet.double.behaviour("hang")
    doomed = fleet.start()
    tasks = [fleet.plain.send(TASK, texts_of(n)) for n in range(3)]
    batch = fleet.plain.send("batch_generate_embeddings", [{"text": f"b{n}", "request_id": n} for n in range(40)], 10)
    eventually(lambda: fleet.double.stats()["requests"] and held(fleet) == 4)
    doomed.kill()
    fleet.double.behaviour("ok")
    fleet.start()
    for n, task in enumerate(tasks):
        assert_vectors(task.get(timeout=60), texts_of(n))
    result = batch.get(timeout=60)
    assert [item["request_id"] for item in result["batch_results"]] == list(range(40))
    for n, item in enumerate(result["batch_results"]):
        assert_vectors(item["result"], [f"b{n}"])


def test_a_worker_that_falls_silent_is_taken_for_dead(fleet):
    fleet.double.behaviour("hang")
    silent = fleet.start()
    task = fleet.plain.send(TASK, ["a"])
    eventually(lambda: fleet.double.stats()["requests"])
    silent.signal(signal.SIGSTOP)
    fleet.double.behaviour("ok")
    fleet.start()
    assert_vectors(task.get(timeout=60), ["a"])
    silent.signal(signal.SIGCONT)
    assert_vectors(fleet.plain.call(TASK, ["b"]), ["b"])
    assert not silent.is_over


FEW_DELIVERIES = {"WORKER__CONCURRENCY": 1, "WORKER__MAX_DELIVERIES": 2}
CODES = ["worker_lost", "worker_lost", "deliveries_exhausted"]


def killed_by_its_task(fleet):
    """Lets a worker begin the task and die with it; its process id."""
    before = fleet.double.stats()["requests"]
    worker = fleet.start(**FEW_DELIVERIES)
    eventually(lambda: fleet.double.stats()["requests"] > before)
    eventually(lambda: held(fleet))
    worker.kill()
    return worker.pid


@pytest.fixture
def requeue(fleet):
    """Requeues a dead letter as an operator does."""
    app = create_app(CommonSettings(broker_url=fleet.redis.url))
    app.conf.result_backend = "disabled://"
    with fleet.redis.client() as store:
        yield Requeue(app, DeadLetters(store, ttl=3600), store).requeue
    app.close()


def dead_letter_of(fleet, task_id):
    with fleet.redis.client() as store:
        return DeadLetters(store, ttl=3600).get(task_id)


def test_a_task_that_kills_every_worker_is_dead_lettered_and_succeeds_when_requeued_after_the_fix(fleet, requeue):
    """Requeued before the fix, it gets all its deliveries again and keeps its history."""
    fleet.double.behaviour("hang")
    task = fleet.plain.publish(TASK, [texts_of(1)], {"model": "all-minilm"}, priority=6)
    dead = [killed_by_its_task(fleet) for _ in range(2)]
    fleet.double.behaviour("ok")
    third = fleet.start(**FEW_DELIVERIES)
    assert error_of(task).startswith("DeliveriesExhausted: The task's worker died each time")
    assert_vectors(fleet.plain.call(TASK, ["after it"]), ["after it"])
    assert fleet.double.stats()["embedded_counts"] == {"nomic-embed-text": {"after it": 1}}
    assert_tells_its_deaths(dead_letter_of(fleet, task.id), dead)
    assert third.terminate() == 0
    fleet.double.behaviour("hang")
    dead_letter = requeue(task.id)
    assert (dead_letter.priority, len(dead_letter.history)) == (6, 3)
    for _ in range(2):
        killed_by_its_task(fleet)
    fleet.start(**FEW_DELIVERIES)
    dead_letter = eventually(lambda: dead_letter_of(fleet, task.id))
    assert [attempt["code"] for attempt in dead_letter.history] == CODES * 2
    assert error_of(fleet.plain.app.AsyncResult(task.id)).startswith("DeliveriesExhausted")
    fleet.double.behaviour("ok")
    dead_letter = requeue(task.id)
    assert (dead_letter.priority, len(dead_letter.history)) == (6, 6)
    again = fleet.plain.app.AsyncResult(task.id)
    assert_vectors(again.get(timeout=60), texts_of(1), "all-minilm")
    assert dead_letter_of(fleet, task.id) is None


def assert_tells_its_deaths(dead_letter, dead):
    assert (dead_letter.task, dead_letter.args, dead_letter.kwargs) == (TASK, [texts_of(1)], {"model": "all-minilm"})
    assert (dead_letter.code, dead_letter.deliveries) == ("deliveries_exhausted", 3)
    assert [attempt["code"] for attempt in dead_letter.history] == CODES
    assert [f":{pid}:" in attempt["worker"] for pid, attempt in zip(dead, dead_letter.history, strict=False)] == [
        True,
        True,
    ]
    assert all(attempt["at"] and attempt["error"] for attempt in dead_letter.history)


def test_tasks_that_never_ran_are_not_blamed(fleet):
    """What a killed worker held but had not begun is not counted as its killer."""
    fleet.double.behaviour("hang")
    settings = {"WORKER__CONCURRENCY": 1, "WORKER__PREFETCH": 4, "WORKER__MAX_DELIVERIES": 2}
    tasks = [fleet.plain.send(TASK, [f"t{n}"]) for n in range(4)]
    for death in range(2):
        worker = fleet.start(**settings)
        eventually(lambda death=death: fleet.double.stats()["requests"] > death and held(fleet) == 4)
        worker.kill()
    fleet.double.behaviour("ok")
    fleet.start(**settings)
    outcomes = [task.get(timeout=60, propagate=False) for task in tasks]
    assert sum(isinstance(outcome, Exception) for outcome in outcomes) <= 1


def test_nothing_accepted_is_lost_while_workers_are_killed_one_after_another(fleet):
    fleet.double.behaviour("slow", delay_ms=30)
    fleet.start()
    with Accepting(fleet) as accepting:
        messages = [accepting.accept(texts_of(n)) for n in range(150)]
        for message in messages:
            accepting.publish(message)
        for death in range(3):
            victim = fleet.start()
            eventually(lambda death=death: fleet.double.stats()["requests"] > 3 * death)
            victim.kill()
        for n, message in enumerate(messages):
            assert_vectors(accepting.result(message).get(timeout=60), texts_of(n))
        eventually(accepting.has_forgotten)
