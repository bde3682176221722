"""`citadel.purge_results` and `citadel.purge_dead_letters`."""

import time
from typing import Any

import orjson
import pytest
import redis

from citadel_common.delivery.accepted_tasks import DUE, LEASES, MESSAGES, AcceptedTasks, TaskMessage
from citadel_common.delivery.dead_letters import KEYS, DeadLetter, DeadLetters
from citadel_common.settings.common import AcceptedSettings
from tests.integration.maintenance.conftest import Ask

TASK = "citadel.purge_results"


@pytest.fixture(autouse=True)
def _empty(store: "redis.Redis") -> None:
    store.delete(MESSAGES, DUE, LEASES, *KEYS)


@pytest.fixture
def accepted(store: "redis.Redis") -> AcceptedTasks:
    """The record; the worker's own sweep does not come to what is due in an hour."""
    return AcceptedTasks(store, AcceptedSettings(first_look=3600))


def envelope(task_id: str, *, looks: int = 0) -> TaskMessage:
    return TaskMessage(task_id=task_id, name="generate_embedding", kwargs={"text": "x"}, priority=3, looks=looks)


def result(store: "redis.Redis", task_id: str, status: str = "SUCCESS", ttl: int | None = 3600) -> None:
    store.set(f"celery-task-meta-{task_id}", orjson.dumps({"status": status, "result": None}), ex=ttl)


def test_the_record_of_a_task_that_has_ended_goes(store: "redis.Redis", accepted: AcceptedTasks, ask: Ask) -> None:
    for task_id in ("ended", "failed", "waiting", "new", "held", "under-way"):
        accepted.add(envelope(task_id, looks=0 if task_id == "new" else 5))
    result(store, "ended")
    result(store, "failed", "FAILURE")
    result(store, "new", "FAILURE")  # as that of a task that was requeued a moment ago
    result(store, "held")
    result(store, "under-way", "PROGRESS")
    accepted.claim("held", "some-worker", redelivered=False)

    foretold, report = ask(TASK, dry_run=True), ask(TASK)

    assert {name.decode() for name in store.hkeys(MESSAGES)} == {"waiting", "new", "held", "under-way"}
    assert {name.decode() for name in store.zrange(DUE, 0, -1)} == {"waiting", "new", "held", "under-way"}
    assert report["kinds"]["accepted_ended"]["removed"] == 2
    assert foretold["kinds"] == report["kinds"]


def test_results_are_left_to_expire(store: "redis.Redis", ask: Ask) -> None:
    result(store, "mine")
    result(store, "of-another-program", ttl=None)
    assert ask(TASK)["removed"] == ask("citadel.purge_orphans")["removed"] == 0
    assert store.exists("celery-task-meta-mine", "celery-task-meta-of-another-program") == 2


def test_what_is_left_of_a_record_goes_and_a_task_that_is_never_due_is(
    store: "redis.Redis", accepted: AcceptedTasks, ask: Ask
) -> None:
    accepted.add(envelope("whole"))
    accepted.add(envelope("timeless"))
    store.zrem(DUE, "timeless")
    store.hset(MESSAGES, "broken", "{")
    store.hset(LEASES, "lonely", "worker 1.0")
    store.zadd(DUE, {"nobody": time.time() + 3600})

    kinds = ask(TASK)["kinds"]

    assert {kind: (row["removed"], row["repaired"]) for kind, row in kinds.items()} == {
        "accepted_unreadable": (1, 0),
        "accepted_unscheduled": (0, 1),
        "lease_without_task": (1, 0),
        "due_without_task": (1, 0),
    }
    assert accepted.exists("timeless")
    assert not accepted.exists("broken")
    assert store.hkeys(LEASES) == []
    assert store.zscore(DUE, "whole") is not None
    assert ask(TASK)["kinds"] == {}


def letter(number: int, *, at: float) -> DeadLetter:
    return DeadLetter(id=f"letter-{number}", queue="embeddings", code="internal", error="it failed", at=at)


def test_dead_letters_past_their_time_go(store: "redis.Redis", ask: Ask) -> None:
    keep = DeadLetters(store, ttl=10**9)
    for number in range(450):
        keep.add(letter(number, at=time.time() - 15 * 86400))
    keep.add(letter(1000, at=time.time() - 13 * 86400))

    foretold: dict[str, Any] = ask("citadel.purge_dead_letters", dry_run=True)
    assert keep.count() == 451
    report = ask("citadel.purge_dead_letters")

    assert [found.id for found in keep.newest()] == ["letter-1000"]
    assert foretold["kinds"] == report["kinds"]
    assert report["removed"] == 450
    assert report["bytes_freed"] > 450 * 100
