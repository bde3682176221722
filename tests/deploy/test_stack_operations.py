"""Upgrades, stops and starts, backups: what an operator does to a stack that works."""

from pathlib import Path

import pytest

from citadel_client import Citadel
from citadel_client.errors import NotFound
from tests.deploy.guide import commands_of
from tests.deploy.load import COLLECTION, DOCUMENTS, MODEL, accepted, assert_all_done, workflow
from tests.deploy.stack import EMBEDDING_MODEL, LONG, OWN, SERVERS, STORES, WORKERS, Stack

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

KILLED = 137
"""Exit status of what had to be ended by force."""
LATER, LATER_TEXT = 99, "what is stored after the backup"


@pytest.mark.parametrize("service", WORKERS)
def test_workers_are_replaced_one_service_after_the_other_and_no_work_is_lost(stack: Stack, service: str):
    stack.wait_healthy()
    before = {container["Id"] for container in stack.containers(service)}
    with stack.client() as citadel:
        load = accepted(citadel)
        stack.compose("up", "--detach", "--no-deps", "--force-recreate", "--wait", service)
        assert before.isdisjoint(container["Id"] for container in stack.containers(service))
        assert_all_done(load)


def test_the_stack_stops_within_its_grace_and_restarts_with_its_data(stack: Stack):
    stack.wait_healthy()
    with stack.client() as citadel:
        kept = citadel.workflows.submit({"steps": [{"step_id": "w", "type": "wait", "parameters": {"duration": "1s"}}]})
        kept.wait(LONG)
        load = accepted(citadel)
        stack.compose("stop")
        polite = (*STORES, *SERVERS, *OWN)
        stopped = {one["Name"]: one["State"] for service in polite for one in stack.containers(service)}
        assert not [name for name, state in stopped.items() if state["Running"]]
        assert not [name for name, state in stopped.items() if state["ExitCode"] == KILLED]
        stack.up()
        assert kept.show().status == "succeeded"
        assert_all_done(load)


def test_the_stores_are_restored_from_backups(stack: Stack, tmp_path: Path):
    """By the guide's commands; Redis keeps what no record has, here the result of a plain task."""
    stack.wait_healthy()
    backup, restore, *_ = commands_of("Backups")
    assert restore.pop() == "make up"
    with stack.client() as citadel:
        run = citadel.workflows.submit(workflow("is it in the backup?"))
        run.wait(LONG)
        task = citadel.submit("is its result?", model=MODEL)
        task.wait(LONG)
        for command in backup:
            stack.shell(command, tmp_path)

        later = citadel.workflows.submit(workflow("this is not"))
        later.wait(LONG)
        citadel.collections.store(COLLECTION, [{"id": LATER, "text": LATER_TEXT}], model=EMBEDDING_MODEL)
        for command in restore:
            stack.shell(command, tmp_path)
        stack.up()
        assert run.show().status == "succeeded"
        assert task.wait(LONG).array.shape == (1, 768)
        with pytest.raises(NotFound):
            later.show()
        assert documents(citadel) == {*range(len(DOCUMENTS))}
        assert_all_done(accepted(citadel))


def test_a_collection_is_restored_from_its_snapshot(stack: Stack, tmp_path: Path):
    """By the guide's commands, first over the collection as it became later, then where there is none."""
    stack.wait_healthy()
    _, _, backup, restore = commands_of("Backups")
    with stack.client() as citadel:
        for command in backup:
            stack.shell(command, tmp_path)
        citadel.collections.store(COLLECTION, [{"id": LATER, "text": LATER_TEXT}], model=EMBEDDING_MODEL)
        assert LATER in documents(citadel)
        for before in ("true", f"scripts/qdrant DELETE /collections/{COLLECTION}"):
            for command in (before, *restore):
                stack.shell(command, tmp_path)
            assert documents(citadel) == {*range(len(DOCUMENTS))}


def documents(citadel: Citadel) -> set[int | str]:
    """Return the ids of the collection's points."""
    return {hit.id for hit in citadel.collections.search(COLLECTION, text=LATER_TEXT, model=EMBEDDING_MODEL, limit=100)}
