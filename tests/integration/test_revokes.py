"""Revokes of a plain Celery client: what waits never runs, what runs is given up, what has ended stays as it is."""

import pytest
from celery.exceptions import TaskRevokedError

from citadel_common.delivery.revoked import REVOKED
from tests.support.accepting import Accepting
from tests.support.celery_client import TIMEOUT
from tests.support.polling import eventually
from tests.support.worker import FAST, ServiceProcess, backend_settings

TASK = "generate_embedding"
BATCH = "batch_generate_embeddings"


@pytest.fixture
def slow(fleet):
    """Let the double take its time, so that a task of the test runs while another waits."""
    fleet.double.behaviour("slow", delay_ms=400)
    return fleet


def is_revoked(result):
    with pytest.raises(TaskRevokedError):
        result.get(timeout=TIMEOUT)
    return result.state == "REVOKED"


def running(fleet):
    """Send a task, and return once the double computes it."""
    task = fleet.plain.send(TASK, "runs")
    eventually(lambda: fleet.double.stats()["requests"])
    return task


def embedded(fleet):
    return set(fleet.double.stats()["embedded_counts"].get("nomic-embed-text", {}))


def test_a_task_that_waits_for_a_thread_never_runs(slow):
    slow.start(WORKER__CONCURRENCY=1, WORKER__PREFETCH=4)
    first = running(slow)
    waiting = [slow.plain.send(TASK, f"waits {n}") for n in range(6)]
    waiting[2].revoke()
    assert is_revoked(waiting[2])
    kept = [task for task in waiting if task is not waiting[2]]
    assert all(task.get(timeout=TIMEOUT)["success"] for task in (first, *kept))
    assert embedded(slow) == {"runs", *(f"waits {n}" for n in range(6) if n != 2)}


def test_many_tasks_are_revoked_by_one_message(slow):
    slow.start(WORKER__CONCURRENCY=1)
    first = running(slow)
    waiting = [slow.plain.send(TASK, f"waits {n}") for n in range(50)]
    slow.plain.app.control.revoke([task.id for task in waiting], terminate=True, signal="SIGKILL")
    assert all(map(is_revoked, waiting))
    assert first.get(timeout=TIMEOUT)["success"]
    last = slow.plain.call(TASK, "last")
    assert last["success"]
    assert embedded(slow) == {"runs", "last"}


@pytest.mark.parametrize("terminate", [False, True])
def test_a_running_task_is_given_up_at_its_next_chunk(slow, terminate):
    slow.start(EMBEDDINGS__BACKENDS__main__MAX_BATCH_TEXTS=8, EMBEDDINGS__BACKENDS__main__MAX_CONCURRENCY=1)
    task = slow.plain.send(TASK, [f"text {n}" for n in range(400)])
    eventually(lambda: slow.double.stats()["requests"])
    task.revoke(terminate=terminate)
    assert is_revoked(task)
    assert slow.plain.call(TASK, "next")["success"]
    assert slow.double.stats()["texts_embedded"] < 100
    assert task.state == "REVOKED"


def test_a_text_for_which_another_task_waits_is_computed_all_the_same(slow):
    slow.start(EMBEDDINGS__BACKENDS__main__MAX_BATCH_TEXTS=8, EMBEDDINGS__BACKENDS__main__MAX_CONCURRENCY=1)
    texts = [f"text {n}" for n in range(64)]
    revoked, kept = slow.plain.send(TASK, texts), slow.plain.send(TASK, texts[32:])
    eventually(lambda: slow.double.stats()["requests"])
    revoked.revoke()
    assert is_revoked(revoked)
    assert kept.get(timeout=TIMEOUT)["success"]


def test_a_running_batch_is_given_up(slow):
    slow.start(EMBEDDINGS__BATCH_WINDOW=1)
    batch = slow.plain.publish(BATCH, [[{"text": f"b {n}"} for n in range(200)]], {"batch_size": 2}, priority=6)
    eventually(lambda: batch.state == "PROGRESS")
    batch.revoke()
    assert is_revoked(batch)
    assert slow.plain.call(TASK, "next")["success"]
    assert slow.double.stats()["texts_embedded"] < 100
    assert batch.state == "REVOKED"


def test_a_task_that_has_ended_stays_as_it_is(fleet):
    fleet.start()
    done, failed = fleet.plain.send(TASK, "done"), fleet.plain.send(TASK, "")
    assert done.get(timeout=TIMEOUT)["success"]
    failed.get(timeout=TIMEOUT, propagate=False)
    fleet.plain.app.control.revoke([done.id, failed.id], reply=True, timeout=TIMEOUT, limit=1)
    later = fleet.plain.send(TASK, "later")
    later.revoke()
    assert is_revoked(later)
    assert (done.state, failed.state) == ("SUCCESS", "FAILURE")


def test_a_worker_that_starts_later_knows_the_revoke(slow):
    slow.start(WORKER__CONCURRENCY=1)
    first = running(slow)
    waiting = slow.plain.send(TASK, "waits")
    answers = slow.plain.app.control.revoke(waiting.id, reply=True, timeout=TIMEOUT, limit=1)
    assert len(answers) == 1
    slow.__exit__(None, None, None)  # kills it, with the first task in its hands
    with slow.redis.client() as client:
        eventually(lambda: client.zcard(REVOKED) == 1)
        assert 0 < client.ttl(REVOKED) <= 3 * 3600
    slow.start()
    assert first.get(timeout=TIMEOUT)["success"]
    assert is_revoked(waiting)
    assert slow.plain.call(TASK, "next")["success"]
    assert "waits" not in embedded(slow)


def test_workers_of_other_queues_remember_a_revoke(fleet):
    """No embeddings worker runs when the client revokes."""
    with ServiceProcess("citadel_monitoring", backend_settings(fleet.redis.url, fleet.double.url) | FAST):
        waiting = fleet.plain.send(TASK, "waits")
        waiting.revoke()
        assert is_revoked(waiting)
    fleet.start()
    assert fleet.plain.call(TASK, "next")["success"]
    assert embedded(fleet) == {"next"}


def test_a_task_that_waits_for_its_countdown_is_removed(fleet):
    fleet.start()
    waiting = fleet.plain.publish(TASK, ["waits"], countdown=600)
    later = fleet.plain.publish(TASK, ["later"], countdown=2)
    assert fleet.plain.call(TASK, "first")["success"]
    fleet.plain.app.control.revoke([waiting.id, later.id])
    assert is_revoked(waiting)
    assert is_revoked(later)
    assert fleet.plain.publish(TASK, ["last"], countdown=3).get(timeout=TIMEOUT)["success"]
    assert embedded(fleet) == {"first", "last"}


def test_a_countdown_that_is_taken_after_its_revoke_does_not_wait(slow):
    slow.start(WORKER__CONCURRENCY=1, WORKER__PREFETCH=1)
    first = running(slow)
    waiting = slow.plain.publish(TASK, ["waits"], countdown=600)
    waiting.revoke()
    assert is_revoked(waiting)
    assert first.get(timeout=TIMEOUT)["success"]
    assert slow.plain.call(TASK, "next")["success"]
    with slow.redis.client() as client:
        eventually(lambda: not [key for key in client.keys("citadel:unacked:*") if client.type(key) == b"hash"])


def test_tasks_are_revoked_by_a_stamp(slow):
    slow.start(WORKER__CONCURRENCY=1, EMBEDDINGS__BACKENDS__main__MAX_BATCH_TEXTS=8)
    stamp = {"stamped_headers": ["customer"], "customer": "c-1"}
    first = slow.plain.publish(TASK, [[f"text {n}" for n in range(400)]], **stamp)
    eventually(lambda: slow.double.stats()["requests"])
    waiting = slow.plain.publish(TASK, ["waits"], **stamp)
    other = slow.plain.publish(TASK, ["other"], **stamp | {"customer": "c-2"})
    slow.plain.app.control.revoke_by_stamped_headers({"customer": ["c-1", "c-9"]}, terminate=True)
    assert is_revoked(first)
    assert is_revoked(waiting)
    assert other.get(timeout=TIMEOUT)["success"]


def test_an_accepted_task_that_is_revoked_is_not_published_again(slow):
    worker = slow.start(WORKER__CONCURRENCY=1)
    first = running(slow)
    with Accepting(slow) as accepting:
        message = accepting.accept("waits")
        accepting.publish(message, times=2)
        waiting = accepting.result(message)
        waiting.revoke()
        assert is_revoked(waiting)
        eventually(accepting.has_forgotten)
        assert first.get(timeout=TIMEOUT)["success"]
        assert slow.plain.call(TASK, "next")["success"]
        assert accepting.has_forgotten()
    assert not worker.events("accepted_task_republished")
    assert embedded(slow) == {"runs", "next"}
