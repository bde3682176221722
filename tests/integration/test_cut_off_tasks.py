"""An embeddings worker that is cut off from Redis while it runs an accepted task: another one takes the task."""

import pytest

from tests.support.accepting import Accepting
from tests.support.assertions import assert_vectors
from tests.support.polling import eventually
from tests.support.relay import Relay
from tests.support.worker import WorkerProcess


@pytest.fixture
def api(fleet):
    with Accepting(fleet) as accepting:
        yield accepting


@pytest.fixture
def cut_off(fleet):
    """A worker whose way to Redis can go dead, and the relay on it."""
    with Relay(fleet.redis.port) as relay:
        url = fleet.redis.url.replace(f":{fleet.redis.port}/", f":{relay.port}/")
        settings = {"STORES__TIMEOUT": 1, "CACHE_URL": fleet.redis.url}
        with WorkerProcess(url, fleet.double.url, **settings) as worker:
            yield worker, relay


def test_its_late_result_changes_nothing_and_is_counted(fleet, api, cut_off):
    worker, relay = cut_off
    fleet.double.behaviour("slow", delay_ms=4000)
    message = api.accept(["a"], cache_enabled=False)
    api.publish(message)
    eventually(lambda: fleet.double.stats()["requests"] == 1)
    relay.vanish()
    fleet.start()
    eventually(lambda: fleet.double.stats()["requests"] == 2)
    relay.heal()
    assert_vectors(api.result(message).get(timeout=60), ["a"])
    eventually(lambda: worker.events("late_result"))
    assert api.result(message).successful()
    eventually(api.has_forgotten)
