"""Revokes of tasks that start runs: the run is cancelled, the task's state is REVOKED."""

from uuid import UUID

import pytest
from celery.exceptions import TaskRevokedError

from tests.support.celery_client import TIMEOUT
from tests.support.polling import eventually


def waiting(name="go"):
    """Return a workflow that waits for a signal."""
    return {"steps": [{"step_id": "s", "type": "wait", "parameters": {"signal": name}}]}


def is_revoked(task):
    with pytest.raises(TaskRevokedError):
        task.get(timeout=TIMEOUT)
    return task.state == "REVOKED"


def has_begun(workers, task):
    return workers.db.rows("SELECT 1 FROM runs WHERE run_id = %s", UUID(task.id))


@pytest.mark.parametrize("terminate", [False, True])
def test_the_run_of_a_revoked_task_is_cancelled(workers, terminate):
    task = workers.send("execute_workflow", waiting())
    eventually(lambda: has_begun(workers, task))
    task.revoke(terminate=terminate)
    assert is_revoked(task)
    assert workers.db.ended(UUID(task.id)) == "cancelled"
    eventually(lambda: workers.db.rows("SELECT 1 FROM runs WHERE run_id = %s AND reply_to IS NULL", UUID(task.id)))
    assert task.state == "REVOKED"


def test_a_question_to_an_llm_is_given_up(workers):
    workers.doubles.llm.behaviour("hang")
    task = workers.send("query_llm_service", "why?")
    eventually(lambda: has_begun(workers, task))
    task.revoke()
    assert is_revoked(task)
    assert workers.db.ended(UUID(task.id)) == "cancelled"


def test_a_run_that_has_ended_and_runs_of_others_stay_as_they_are(workers):
    done, other = workers.send("query_llm_service", "why?"), workers.send("execute_workflow", waiting("other"))
    assert done.get(timeout=TIMEOUT)["success"]
    foreign = workers.begin(waiting("foreign"))
    task = workers.send("execute_workflow", waiting())
    for each in (task, other):
        eventually(lambda each=each: has_begun(workers, each))
    workers.plain.app.control.revoke([done.id, task.id, str(foreign)])
    assert is_revoked(task)
    assert workers.db.ended(UUID(task.id)) == "cancelled"
    assert done.state == "SUCCESS"
    assert {workers.db.status(UUID(other.id)), workers.db.status(foreign)} == {"running"}
    other.revoke()
    assert is_revoked(other)
    workers.db.commands.cancel(foreign)


def test_a_revoke_that_came_before_the_run_was_recorded_cancels_it_too(workers):
    """The client revokes at once: the worker may be anywhere between the message and the run."""
    tasks = [workers.send("execute_workflow", waiting()) for _ in range(30)]
    for task in tasks:
        task.revoke()
    assert all(map(is_revoked, tasks))
    ids = [UUID(task.id) for task in tasks]
    eventually(
        lambda: (
            not workers.db.rows("SELECT run_id FROM runs WHERE run_id = ANY(%s) AND status <> 'cancelled'", ids)
            and not workers.redis.client().llen("orchestration\x06\x163")
        )
    )
