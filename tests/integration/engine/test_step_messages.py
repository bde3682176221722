"""Messages by which the engine asks for vectors; no embeddings worker runs, so that they can be read."""

import base64
import json

import pytest

from citadel_common.delivery.queues import lists_of
from citadel_contracts import Lane, Queue
from citadel_orchestration.engine.submission import Origin, new_run_id
from tests.support.polling import eventually

CHUNK = {"step_id": "s", "type": "embedding_chunk", "parameters": {"requests": [{"request_id": "a", "text": "a"}]}}


@pytest.fixture(scope="module")
def engine(platform):
    platform.orchestration()
    return platform


def submit(engine, lane):
    db = engine.db
    definition = db.submissions.check({"steps": [CHUNK]})
    run = db.submissions.run_of(definition, run_id=new_run_id(), origin=Origin(lane=lane.value))
    run_id = str(db.commands.submit(run).run_id)
    engine.send("citadel.run_step", run_id=run_id, step_id="s")


def only_message(engine, lane):
    """Return the step in the one message of that lane, and take the message."""
    name = lists_of(Queue.EMBEDDINGS)[[0, 3, 6].index(lane.value)]
    with engine.redis.client() as client:
        raw = eventually(lambda: client.rpop(name))
    _, kwargs, _ = json.loads(base64.b64decode(json.loads(raw)["body"]))
    [step] = kwargs["steps"]
    return step


def test_a_lane_is_named_only_where_it_differs_from_that_of_the_message(engine):
    """Workers of older versions refuse the field: chunks of batches, whose messages are in their lane, go without."""
    submit(engine, Lane.BATCH)
    assert "lane" not in only_message(engine, Lane.BATCH)
    submit(engine, Lane.STANDARD)
    assert only_message(engine, Lane.STANDARD)["lane"] == Lane.BATCH
