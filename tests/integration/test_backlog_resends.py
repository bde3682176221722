"""A backlog makes no further messages: what waits in the broker is not sent again, what is missing is, once."""

import pytest

from citadel_common.delivery.accepted_tasks import DUE, HASTENED, AcceptedTasks
from citadel_common.delivery.queues import lists_of
from citadel_common.delivery.republishing import Republisher
from citadel_common.delivery.tracked_messages import MARK_PREFIX
from citadel_common.settings.common import AcceptedSettings
from citadel_common.telemetry import NULL_METRICS
from citadel_contracts import Queue
from tests.support.accepting import Accepting
from tests.support.polling import eventually

LANES = lists_of(Queue.EMBEDDINGS)
STANDARD = LANES[1]


@pytest.fixture
def api(fleet):
    with Accepting(fleet) as accepting:
        yield accepting


@pytest.fixture
def republisher(api):
    """What each worker does at its heartbeat; every task is always due."""
    accepted = AcceptedTasks(api.client, AcceptedSettings(first_look=0.001, longest_wait=0.001))
    return Republisher(api.app, api.client, accepted, NULL_METRICS)


def waiting(api):
    """Return the number of messages in the lanes."""
    return sum(api.client.llen(name) for name in LANES)


def look(api, republisher):
    """Look at every task."""
    with api.client.pipeline() as pipe:
        for task_id in api.client.zrange(DUE, 0, -1):
            pipe.zadd(DUE, {task_id: 0})
        pipe.execute()
    republisher.look()


def test_tasks_that_wait_in_a_lane_are_not_published_again(api, republisher):
    for n in range(50):
        api.publish(api.accept([f"t{n}"]))
    for _ in range(3):
        look(api, republisher)
    assert waiting(api) == 50


def test_a_worker_that_is_slower_than_its_backlog_gets_each_task_once(fleet, api):
    fleet.double.behaviour("slow", delay_ms=100)
    messages = [api.accept([f"t{n}"], cache_enabled=False) for n in range(40)]
    for message in messages:
        api.publish(message)
    worker = fleet.start(WORKER__CONCURRENCY=1)
    for message in messages:
        api.result(message).get(timeout=60)
    eventually(api.has_forgotten)
    assert worker.events("accepted_task_republished") == []
    assert worker.events("duplicate_dropped") == []
    assert set(fleet.double.stats()["embedded_counts"]["nomic-embed-text"].values()) == {1}


def test_only_the_tasks_that_are_missing_are_published(api, republisher):
    messages = [api.accept([f"t{n}"]) for n in range(10)]
    for message in messages[:7]:
        api.publish(message)
    look(api, republisher)
    look(api, republisher)
    assert waiting(api) == 10


def test_a_failover_that_lost_the_newest_writes_costs_no_task_and_doubles_none(api, republisher):
    """The other server has the first part of what this one was told: here, all but the last three transactions."""
    messages = [api.accept([f"t{n}"]) for n in range(10)]
    for message in messages:
        api.publish(message)
    for message in messages[7:]:
        api.client.lpop(STANDARD)
        api.client.delete(MARK_PREFIX + message.task_id)
    look(api, republisher)
    assert waiting(api) == 10


def test_after_a_loss_of_data_every_task_is_looked_at_at_once(api, republisher):
    republisher.look()
    messages = [api.accept([f"t{n}"]) for n in range(3)]
    later = {message.task_id: 4e9 for message in messages}
    api.client.zadd(DUE, later)
    republisher.look()
    assert waiting(api) == 0
    api.client.delete("citadel:broker:epoch")
    republisher.look()
    assert waiting(api) == 3


def test_after_a_loss_of_data_more_tasks_than_one_command_takes_are_looked_at(api, republisher):
    republisher.look()
    tasks = [api.accept([f"t{n}"]).task_id for n in range(HASTENED + 1)]
    api.client.zadd(DUE, dict.fromkeys(tasks, 4e9))
    api.client.delete("citadel:broker:epoch")
    eventually(lambda: republisher.look() or waiting(api) >= len(tasks))
    assert waiting(api) == len(tasks)


def test_a_lane_that_an_operator_deleted_is_filled_again(api, republisher):
    for n in range(5):
        api.publish(api.accept([f"t{n}"]))
    api.client.delete(*LANES)
    look(api, republisher)
    assert waiting(api) == 5


def test_a_task_that_a_worker_holds_is_not_published_again_when_the_lanes_are_empty(fleet, api, republisher):
    fleet.double.behaviour("hang")
    fleet.start(ACCEPTED__LEASE=3600)
    message = api.accept(["a"])
    api.publish(message)
    eventually(lambda: fleet.double.stats()["requests"])
    look(api, republisher)
    assert waiting(api) == 0


@pytest.mark.parametrize("state", ["SUCCESS", "REVOKED"])
def test_a_task_that_has_ended_is_not_published_because_its_record_was_left_behind(api, republisher, state):
    message = api.accept(["a"])
    api.client.set(f"celery-task-meta-{message.task_id}", f'{{"status": "{state}", "result": null}}')
    look(api, republisher)
    assert waiting(api) == 0
    assert api.has_forgotten()


def test_a_mark_is_removed_with_its_message(fleet, api):
    fleet.start()
    message = api.accept(["a"])
    api.publish(message)
    api.result(message).get(timeout=60)
    eventually(lambda: not api.client.keys(f"{MARK_PREFIX}*"))
