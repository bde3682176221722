"""The same vectors may come twice: a step that goes on with them does so once."""

from uuid import uuid4

import numpy as np
import pytest

from citadel_common.embeddings.vectors import to_base64
from citadel_contracts.workflows import EMBEDDED, EmbeddedPart, StepEmbedded
from tests.support.polling import eventually

DIMENSIONS = 4


@pytest.fixture(scope="module")
def two_engines(platform):
    """Two orchestration workers; the test itself answers for the embeddings workers."""
    platform.engines = [platform.orchestration(), platform.orchestration()]
    return platform


@pytest.fixture
def engines(two_engines):
    """Return the workers, with doubles that are healthy and have counted nothing."""
    two_engines.doubles.reset()
    return two_engines


def upsert(collection, count=1):
    points = [{"id": number, "text": f"text {number}"} for number in range(count)]
    return {"step_id": "s", "type": "vector_upsert", "parameters": {"collection": collection, "points": points}}


def search(collection):
    return {"step_id": "s", "type": "vector_search", "parameters": {"collection": collection, "text": "what"}}


def answer(engines, run_id, *, times=1, count=1):
    """Send vectors for the running attempt of step `s`, as the embeddings workers do."""
    query = "SELECT attempt FROM steps WHERE run_id = %s AND status = 'running'"
    [(attempt,)] = eventually(lambda: engines.db.rows(query, run_id))
    vectors = [to_base64(np.eye(DIMENSIONS, dtype="<f4")[number]) for number in range(count)]
    part = EmbeddedPart(vectors=vectors, model="m", dimensions=DIMENSIONS)
    message = StepEmbedded(run_id=str(run_id), step_id="s", item=-1, attempt=attempt, parts=[part])
    with engines.redis.client() as client:
        client.rpush(EMBEDDED, *[message.model_dump_json()] * times)


def drained(engines):
    with engines.redis.client() as client:
        eventually(lambda: not client.exists(EMBEDDED))


def asked(engines, route):
    """Return how often Qdrant was called on a route."""
    counts = engines.doubles.qdrant.stats()["requests"]
    return sum(count for name, count in counts.items() if name.endswith(route))


@pytest.fixture
def collection(engines):
    """Return the name of a collection with a point in it."""
    name = f"c{uuid4().hex}"
    run_id = engines.begin({"steps": [upsert(name)]})
    answer(engines, run_id)
    assert engines.db.ended(run_id) == "succeeded"
    return name


@pytest.mark.parametrize(("step", "route"), [(search, "/points/query"), (upsert, "/points")])
def test_a_second_answer_does_not_execute_the_step_again(engines, collection, step, route):
    before = asked(engines, route)
    engines.doubles.qdrant.behaviour("slow", delay_ms=1500, only_route=route.removeprefix("/"))
    run_id = engines.begin({"steps": [step(collection)]})
    answer(engines, run_id)
    eventually(lambda: asked(engines, route) == before + 1)
    answer(engines, run_id, times=20)
    drained(engines)
    assert engines.db.ended(run_id) == "succeeded"
    assert asked(engines, route) == before + 1
    engines.db.assert_recorded_once(run_id)


def test_answers_that_come_at_once_execute_the_step_once(engines, collection):
    before = asked(engines, "/points/query")
    engines.doubles.qdrant.behaviour("slow", delay_ms=300, only_route="points/query")
    run_id = engines.begin({"steps": [search(collection)]})
    answer(engines, run_id, times=30)
    assert engines.db.ended(run_id) == "succeeded"
    drained(engines)
    assert asked(engines, "/points/query") == before + 1


def test_a_later_attempt_goes_on_with_its_own_answer(engines, collection):
    engines.doubles.qdrant.behaviour("error500", only_route="points/query", for_requests=1)
    retry = {"retry": {"max_attempts": 3, "delay": "10ms", "max_delay": "10ms"}}
    run_id = engines.begin({"steps": [search(collection) | retry]})
    answer(engines, run_id, times=2)
    eventually(lambda: engines.db.rows("SELECT 1 FROM steps WHERE tries = 1 AND status = 'running'"))
    answer(engines, run_id)
    assert engines.db.ended(run_id) == "succeeded"


def test_the_delay_that_qdrant_asks_for_is_kept(engines, collection):
    engines.doubles.qdrant.behaviour("rate429", only_route="points/query", for_requests=1)
    retry = {"retry": {"max_attempts": 3, "delay": "1ms", "max_delay": "2ms"}}
    parameters = {"collection": collection, "embedding": [1.0] + [0.0] * (DIMENSIONS - 1)}
    run_id = engines.begin({"steps": [search(collection) | {"parameters": parameters} | retry]})
    assert engines.db.ended(run_id) == "succeeded"
    [(delay,)] = engines.db.rows(
        "SELECT (data->>'delay_s')::float FROM events WHERE run_id = %s AND type = 'step_retrying'", run_id
    )
    assert delay >= 1.0
