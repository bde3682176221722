"""Upgrades, stops and starts, backups: what an operator does to a stack that works."""

from pathlib import Path

import pytest

from citadel_client.errors import NotFound
from tests.deploy.load import MODEL, accepted, assert_all_done, workflow
from tests.deploy.stack import LONG, OWN, STORES, WORKERS, Stack

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

KILLED = 137
"""Exit status of what had to be ended by force."""
TAR = "docker compose run --rm --no-deps -T --entrypoint tar"
RESTORE = "docker compose exec -T postgres pg_restore -U citadel -d citadel --clean --if-exists --single-transaction"
EMPTY = "docker compose run --rm --no-deps -T --entrypoint sh"


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
        stopped = {one["Name"]: one["State"] for service in (*STORES, *OWN) for one in stack.containers(service)}
        assert not [name for name, state in stopped.items() if state["Running"]]
        assert not [name for name, state in stopped.items() if state["ExitCode"] == KILLED]
        stack.up()
        assert kept.show().status == "succeeded"
        assert_all_done(load)


def test_the_record_and_redis_are_restored_from_backups(stack: Stack, tmp_path: Path):
    """By the commands of compose/README.md; Redis keeps what no record has, here the result of a plain task."""
    stack.wait_healthy()
    with stack.client() as citadel:
        run = citadel.workflows.submit(workflow("is it in the backup?"))
        run.wait(LONG)
        task = citadel.submit("is its result?", model=MODEL)
        task.wait(LONG)
        stack.shell("docker compose exec -T postgres pg_dump -U citadel -Fc citadel >record.dump", tmp_path)
        stack.shell("docker compose pause redis", tmp_path)
        stack.shell(f"{TAR} redis -cf - -C /data appendonlydir >redis.tar", tmp_path)
        stack.shell("docker compose unpause redis", tmp_path)

        later = citadel.workflows.submit(workflow("this is not"))
        later.wait(LONG)
        stack.compose("stop", *OWN, "redis")
        restore = (
            "docker compose exec -T postgres pg_restore -U citadel -d citadel --clean --if-exists --single-transaction"
        )
        stack.shell(f"{restore} <record.dump", tmp_path)
        stack.shell(f"{EMPTY} redis -c 'rm -rf /data/appendonlydir'", tmp_path)
        stack.shell(f"{TAR} redis -xf - -C /data <redis.tar", tmp_path)
        stack.up()
        assert run.show().status == "succeeded"
        assert task.wait(LONG).array.shape == (1, 768)
        with pytest.raises(NotFound):
            later.show()
        assert_all_done(accepted(citadel))
