"""Texts of steps that wait in the embeddings workers' queue, behind a backlog, while engines come and go."""

from citadel_common.delivery.queues import lists_of
from citadel_contracts import Queue
from tests.support.polling import eventually

EMBED = {"steps": [{"step_id": "v", "type": "embedding", "parameters": {"text": "waits", "model": "all-minilm"}}]}


def waiting(platform):
    with platform.redis.client() as store:
        return sum(store.llen(name) for name in lists_of(Queue.EMBEDDINGS))


def owner_of(platform, run_id):
    return platform.db.rows("SELECT lease_owner, attempt, deaths FROM steps WHERE run_id = %s", run_id)[0]


def begin(platform):
    """Begin a run whose texts nobody takes; return it and the owner of its step."""
    platform.doubles.reset()
    run_id = platform.begin(EMBED)
    eventually(lambda: waiting(platform) == 1)
    return run_id, owner_of(platform, run_id)[0]


def test_the_engine_that_takes_a_dead_ones_step_over_waits_for_the_vectors_that_were_asked_for(platform):
    dead = platform.orchestration()
    run_id, owner = begin(platform)
    dead.kill()
    other = platform.orchestration()
    eventually(lambda: owner_of(platform, run_id)[0] not in (owner, None))
    assert (waiting(platform), owner_of(platform, run_id)[1:]) == (1, (1, 0))
    embeddings = platform.embeddings()
    assert platform.db.ended(run_id) == "succeeded"
    platform.db.assert_recorded_once(run_id)
    assert (embeddings.terminate(), other.terminate()) == (0, 0)


def test_an_engine_that_stops_leaves_its_texts_in_the_queue(platform):
    stopped = platform.orchestration()
    run_id, owner = begin(platform)
    assert stopped.terminate() == 0
    platform.orchestration()
    eventually(lambda: owner_of(platform, run_id)[0] not in (owner, None))
    assert (waiting(platform), owner_of(platform, run_id)[1:]) == (1, (1, 0))
