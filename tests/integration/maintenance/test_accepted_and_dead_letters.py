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
    """Return the accepted tasks; they are due in an hour, so the worker's own sweep does not reach them."""
    return AcceptedTasks(store, AcceptedSettings(first_look=3600))


def message(task_id: str, *, looks: int = 0) -> TaskMessage:
    return TaskMessage(task_id=task_id, name="generate_embedding", kwargs={"text": "x"}, priority=3, looks=looks)


def result(store: "redis.Redis", task_id: str, status: str = "SUCCESS", ttl: int | None = 3600) -> None:
    store.set(f"celery-task-meta-{task_id}", orjson.dumps({"status": status, "result": None}), ex=ttl)


def test_records_of_ended_tasks_are_removed(store: "redis.Redis", accepted: AcceptedTasks, ask: Ask) -> None:
    for task_id in ("ended", "failed", "waiting", "new", "held", "under-way"):
        accepted.add(message(task_id, looks=0 if task_id == "new" else 5))
    result(store, "ended")
    result(store, "failed", "FAILURE")
    result(store, "new", "FAILURE")  # like a task that has just been requeued
    result(store, "held")
    result(store, "under-way", "PROGRESS")
    accepted.claim("held", "generate_embedding", "some-worker", redelivered=False)

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


def test_leftovers_of_records_are_removed_and_a_lost_due_time_is_set(
    store: "redis.Redis", accepted: AcceptedTasks, ask: Ask
) -> None:
    accepted.add(message("whole"))
    accepted.add(message("timeless"))
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


def dead_letter(number: int, *, at: float) -> DeadLetter:
    return DeadLetter(id=f"letter-{number}", queue="embeddings", code="internal", error="it failed", at=at)


def test_expired_dead_letters_are_removed(store: "redis.Redis", ask: Ask) -> None:
    kept = DeadLetters(store, ttl=10**9)
    for number in range(450):
        kept.add(dead_letter(number, at=time.time() - 15 * 86400))
    kept.add(dead_letter(1000, at=time.time() - 13 * 86400))

    foretold: dict[str, Any] = ask("citadel.purge_dead_letters", dry_run=True)
    assert kept.count() == 451
    report = ask("citadel.purge_dead_letters")

    assert [found.id for found in kept.newest()] == ["letter-1000"]
    assert foretold["kinds"] == report["kinds"]
    assert report["removed"] == 450
    assert report["bytes_freed"] > 450 * 100
