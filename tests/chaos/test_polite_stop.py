"""Workers are told to stop while they work: nothing is lost, nothing is blamed, the exit code is 0."""

import signal

import pytest

from tests.support.assertions import assert_vectors
from tests.support.polling import eventually

TASK = "generate_embedding"
BATCH = "batch_generate_embeddings"


def queued(fleet):
    with fleet.redis.client() as store:
        return store.llen("embeddings")


def unacked(fleet):
    with fleet.redis.client() as store:
        return [key for key in store.keys("citadel:unacked:*") if store.type(key) == b"hash"]


def assert_batch(result, count):
    assert [item["request_id"] for item in result["batch_results"]] == list(range(count))
    for n, item in enumerate(result["batch_results"]):
        assert_vectors(item["result"], [f"b{n}"])


def requests_of(count):
    return [{"text": f"b{n}", "request_id": n} for n in range(count)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends(fleet, number):
    worker = fleet.start()
    worker.signal(number)
    assert worker.wait() == 0
    with fleet.redis.client() as store:
        assert store.keys("citadel:unacked:*") == []


@pytest.mark.parametrize("times", [1, 2])
def test_running_tasks_finish(fleet, times):
    fleet.double.behaviour("slow", delay_ms=400)
    worker = fleet.start()
    tasks = [fleet.plain.send(TASK, [f"t{n}"]) for n in range(4)]
    eventually(lambda: fleet.double.stats()["texts_received"] == 4)
    for count in range(times):
        worker.signal(signal.SIGTERM)
        worker.wait_for("worker_stopping", times=count + 1)
    assert worker.wait() == 0
    assert (queued(fleet), unacked(fleet)) == (0, [])
    for n, task in enumerate(tasks):
        assert_vectors(task.get(timeout=60), [f"t{n}"])
    assert fleet.double.stats()["max_embedded_count"] == 1


def test_tasks_that_outlast_the_grace_are_handed_back(fleet):
    fleet.double.behaviour("hang")
    tasks = [fleet.plain.send(TASK, [f"t{n}"]) for n in range(3)]
    for stop in range(2):
        worker = fleet.start(WORKER__STOP_GRACE=0.3, WORKER__MAX_DELIVERIES=2, CACHE__CLAIM_TTL=3600)
        eventually(lambda stop=stop: fleet.double.stats()["requests"] > stop)
        assert worker.terminate() == 0
        assert (queued(fleet), unacked(fleet)) == (3, [])
    fleet.double.behaviour("ok")
    fleet.start(WORKER__MAX_DELIVERIES=2)
    for n, task in enumerate(tasks):
        assert_vectors(task.get(timeout=60), [f"t{n}"])


def test_prefetched_messages_return_to_the_queue(fleet):
    fleet.double.behaviour("slow", delay_ms=400)
    worker = fleet.start(WORKER__CONCURRENCY=1, WORKER__PREFETCH=5)
    tasks = [fleet.plain.send(TASK, [f"t{n}"]) for n in range(5)]
    eventually(lambda: fleet.double.stats()["requests"])
    assert worker.terminate() == 0
    assert 1 <= queued(fleet) <= 4
    fleet.double.behaviour("ok")
    fleet.start(WORKER__MAX_DELIVERIES=2)
    for n, task in enumerate(tasks):
        assert_vectors(task.get(timeout=60), [f"t{n}"])


def test_a_long_batch_moves_to_the_next_worker(fleet):
    fleet.double.behaviour("slow", delay_ms=150)
    worker = fleet.start(EMBEDDINGS__BATCH_WINDOW=1)
    task = fleet.plain.send(BATCH, requests_of(100), 10)
    eventually(lambda: fleet.double.stats()["texts_embedded"] >= 10)
    assert worker.terminate() == 0
    done = fleet.double.stats()["texts_embedded"]
    assert done < 100
    fleet.double.behaviour("ok")
    fleet.start(WORKER__MAX_DELIVERIES=2)
    assert_batch(task.get(timeout=60), 100)
    assert fleet.double.stats()["max_embedded_count"] == 1


def test_a_batch_that_outlasts_the_grace_moves_to_the_next_worker(fleet):
    fleet.double.behaviour("hang")
    worker = fleet.start(WORKER__STOP_GRACE=0.3, CACHE__CLAIM_TTL=3600)
    task = fleet.plain.send(BATCH, requests_of(20), 5)
    warm = fleet.plain.send("warm_embedding_cache", [f"w{n}" for n in range(10)], ["all-minilm"])
    eventually(lambda: fleet.double.stats()["requests"] >= 2)
    assert worker.terminate() == 0
    fleet.double.behaviour("ok")
    fleet.start()
    assert_batch(task.get(timeout=60), 20)
    assert warm.get(timeout=60)["cache_warming_results"] == {"warmed": 10, "skipped": 0, "errors": 0}


def test_two_interrupts_end_a_worker_at_once_and_lose_nothing(fleet):
    fleet.double.behaviour("hang")
    worker = fleet.start(WORKER__STOP_GRACE=3600)
    task = fleet.plain.send(TASK, ["t"])
    eventually(lambda: fleet.double.stats()["requests"])
    worker.signal(signal.SIGINT)
    worker.wait_for("worker_stopping")
    worker.signal(signal.SIGINT)
    worker.wait()
    fleet.double.behaviour("ok")
    fleet.start()
    assert_vectors(task.get(timeout=60), ["t"])


def test_workers_are_replaced_one_by_one_under_load(fleet):
    fleet.double.behaviour("slow", delay_ms=20)
    worker = fleet.start()
    tasks = [fleet.plain.send(TASK, [f"t{n}", "common"]) for n in range(200)]
    for _ in range(2):
        successor = fleet.start()
        assert worker.terminate() == 0
        worker = successor
    for n, task in enumerate(tasks):
        assert_vectors(task.get(timeout=60), [f"t{n}", "common"])
    assert fleet.double.stats()["max_embedded_count"] == 1
