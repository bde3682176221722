"""Containers die, each in its turn, under load: nothing that was accepted is lost, and the stack is whole again."""

import uuid

import pytest

from citadel_client import Citadel
from citadel_client.errors import CitadelApiError
from tests.deploy.load import MODEL, accepted, assert_all_done
from tests.deploy.stack import DOUBLE, LONG, OWN, SERVERS, STORES, Stack
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]


@pytest.mark.parametrize("service", [*STORES, *SERVERS, DOUBLE, *OWN])
def test_runs_and_batches_survive_the_kill_of_a_container(stack: Stack, service: str):
    stack.wait_healthy()
    (victim, *_) = stack.containers(service)
    with stack.client() as citadel:
        load = accepted(citadel)
        stack.kill(victim)
        eventually(lambda: _started(stack, service) != victim["State"]["StartedAt"], LONG)
        stack.wait_healthy()
        eventually(lambda: _answers(citadel), LONG)
        assert_all_done(load)


def _answers(citadel: Citadel) -> bool:
    try:
        return citadel.embed(f"well again {uuid.uuid4()}", model=MODEL).array.shape == (1, 768)
    except CitadelApiError:
        return False


def _started(stack: Stack, service: str) -> str:
    """When the first container of the service was started last."""
    started: str = stack.containers(service)[0]["State"]["StartedAt"]
    return started
