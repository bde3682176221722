"""Qdrant is killed in the middle and comes back some seconds later: steps wait for it in place."""

import signal
import time
from contextlib import ExitStack

import pytest

from tests.support import own_qdrant
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import QDRANT_KEY
from tests.support.polling import eventually
from tests.support.servers import double_or_real

AWAY_S = 6.0
RUNS = 40
POINT = {"id": 1, "embedding": [1.0, 0.0], "payload": {"name": "east"}}


@pytest.fixture(params=double_or_real(own_qdrant.double, own_qdrant.real))
def qdrant(request):
    """A Qdrant of the test's own."""
    with ExitStack() as stack:
        yield request.param(stack)


@pytest.fixture
def start_worker(platform, qdrant):
    """Start an orchestration worker that uses that Qdrant."""
    with ExitStack() as stack:
        others = {"QDRANT__URL": qdrant.url, "QDRANT__API_KEY": QDRANT_KEY}

        def start(**settings):
            return stack.enter_context(OrchestrationProcess(platform.redis.url, platform.dsn, others, **settings))

        yield start


def upsert(number=1, **step):
    points = [POINT | {"id": number}]
    return {"step_id": "s", "type": "vector_upsert", "parameters": {"collection": "docs", "points": points}} | step


def search(**step):
    parameters = {"collection": "docs", "embedding": [1.0, 0.0], "limit": 100}
    return {"step_id": "s", "type": "vector_search", "parameters": parameters} | step


def ends(platform, runs):
    return {platform.db.ended(run_id) for run_id in runs}


def tries(platform, runs):
    return {platform.db.rows("SELECT tries FROM steps WHERE run_id = %s", run_id)[0][0] for run_id in runs}


def running(platform, runs):
    return all(platform.db.rows("SELECT 1 FROM steps WHERE run_id = %s AND status = 'running'", r) for r in runs)


def test_searches_and_upserts_succeed_when_it_is_back_without_using_attempts_up(platform, qdrant, start_worker):
    start_worker()
    assert ends(platform, [platform.begin({"steps": [upsert()]})]) == {"succeeded"}
    qdrant.kill()
    runs = [platform.begin({"steps": [search() if n % 2 else upsert(n)]}) for n in range(RUNS)]
    eventually(lambda: running(platform, runs))
    time.sleep(AWAY_S)  # the outage itself
    qdrant.restart_same_port()
    assert ends(platform, runs) == {"succeeded"}
    assert tries(platform, runs) == {0}
    found = platform.call("vector_similarity_search", collection="docs", embedding=[1.0, 0.0], limit=100)
    assert len(found["hits"]) == RUNS // 2 + 1


def test_a_step_waits_no_longer_than_its_timeout(platform, qdrant, start_worker):
    start_worker()
    qdrant.kill()
    run_id = platform.begin({"steps": [search(timeout="1s", retry={"max_attempts": 1})]})
    assert platform.db.ended(run_id) == "failed"
    assert "the vector store does not answer" in platform.db.error(run_id)["message"]


def test_a_worker_that_stops_hands_waiting_steps_back_at_once(platform, qdrant, start_worker):
    first = start_worker(WORKER__STOP_GRACE="300")
    qdrant.kill()
    run_id = platform.begin({"steps": [upsert()]})
    eventually(lambda: running(platform, [run_id]))
    eventually(lambda: first.events("outage_began"))
    first.signal(signal.SIGTERM)
    first.wait()
    assert platform.db.rows("SELECT status, tries FROM steps WHERE run_id = %s", run_id) == [("ready", 0)]
    qdrant.restart_same_port()
    start_worker()
    assert platform.db.ended(run_id) == "succeeded"


def test_a_run_is_cancelled_while_its_step_waits(platform, qdrant, start_worker):
    worker = start_worker()
    qdrant.kill()
    run_id = platform.begin({"steps": [upsert()]})
    eventually(lambda: worker.events("outage_began"))
    platform.db.commands.cancel(run_id)
    assert platform.db.ended(run_id) == "cancelled"
