"""Accepted tasks, published as the API does: lost messages are published again, duplicates change nothing."""

import pytest

from tests.support.accepting import Accepting
from tests.support.assertions import assert_vectors
from tests.support.celery_client import error_of
from tests.support.polling import eventually

TASK = "generate_embedding"


@pytest.fixture
def api(fleet):
    with Accepting(fleet) as accepting:
        yield accepting


def test_an_accepted_task_runs_and_its_row_is_deleted(fleet, api):
    fleet.start()
    message = api.accept(["a"])
    api.publish(message)
    assert_vectors(api.result(message).get(timeout=60), ["a"])
    eventually(api.has_forgotten)


@pytest.mark.parametrize("published", [False, True])
def test_a_lost_message_is_published_again(fleet, api, published):
    messages = [api.accept([f"t{n}"]) for n in range(20)]
    for message in messages if published else []:
        api.publish(message)
    api.client.delete("embeddings", *(f"embeddings\x06\x16{step}" for step in (3, 6, 9)))
    fleet.start()
    for n, message in enumerate(messages):
        assert_vectors(api.result(message).get(timeout=60), [f"t{n}"])
    eventually(api.has_forgotten)


def test_a_message_lost_with_its_worker_is_published_again(fleet, api):
    fleet.double.behaviour("hang")
    doomed = fleet.start()
    message = api.accept(["a"])
    api.publish(message)
    eventually(lambda: fleet.double.stats()["requests"])
    doomed.kill()
    api.client.delete(*api.client.keys("citadel:unacked:*"))
    fleet.double.behaviour("ok")
    fleet.start()
    assert_vectors(api.result(message).get(timeout=60), ["a"])


def test_duplicates_run_once(fleet, api):
    fleet.double.behaviour("slow", delay_ms=100)
    message = api.accept(["a"], cache_enabled=False)
    api.publish(message, times=20)
    workers = [fleet.start(), fleet.start()]
    assert_vectors(api.result(message).get(timeout=60), ["a"])
    eventually(lambda: sum(len(worker.events("duplicate_dropped")) for worker in workers) >= 19)
    assert fleet.double.stats()["embedded_counts"] == {"nomic-embed-text": {"a": 1}}
    assert api.has_forgotten()


def test_a_task_that_runs_long_is_not_published_again(fleet, api):
    """Its lease is renewed beyond its first length, so nobody publishes it again."""
    fleet.double.behaviour("slow", delay_ms=2500)
    worker = fleet.start()
    message = api.accept(["a"])
    api.publish(message)
    assert_vectors(api.result(message).get(timeout=60), ["a"])
    assert worker.events("accepted_task_republished") == []


def test_a_retry_may_run_on_any_worker_at_once(fleet, api):
    """The lease of the failed attempt does not keep others off."""
    fleet.double.behaviour("busy503")
    settings = {"EMBEDDINGS__PATIENCE": 0.2, "ACCEPTED__LEASE": 3600, "WORKER__RETRY__MAX_RETRIES": 1000}
    first = fleet.start(**settings)
    message = api.accept(["a"])
    api.publish(message)
    first.wait_for("task_retried")
    fleet.start(**settings)
    first.terminate()
    fleet.double.behaviour("ok")
    assert_vectors(api.result(message).get(timeout=60), ["a"])


def test_a_failed_task_is_not_published_again(fleet, api):
    fleet.start()
    message = api.accept([""])
    api.publish(message)
    assert error_of(api.result(message)).startswith("InvalidInput: text[0]: is empty")
    eventually(api.has_forgotten)


def test_a_task_that_was_handed_back_and_lost_its_worker_still_runs(fleet, api):
    fleet.double.behaviour("hang")
    message = api.accept(["a"])
    api.publish(message)
    polite = fleet.start(WORKER__STOP_GRACE=0.2, ACCEPTED__LEASE=3600)
    eventually(lambda: fleet.double.stats()["requests"] == 1)
    assert polite.terminate() == 0
    killed = fleet.start(ACCEPTED__LEASE=3600)
    eventually(lambda: fleet.double.stats()["requests"] == 2)
    killed.kill()
    fleet.double.behaviour("ok")
    fleet.start()
    assert_vectors(api.result(message).get(timeout=60), ["a"])
    eventually(api.has_forgotten)
