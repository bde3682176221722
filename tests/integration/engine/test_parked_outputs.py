"""Answers that were paid for, and a worker that ends while PostgreSQL does not take them."""

from citadel_orchestration.engine.parked_outputs import KEY
from tests.support.polling import eventually
from tests.support.refusals import Refusals

ASK = {"steps": [{"step_id": "a", "type": "llm_query", "parameters": {"query": "paid"}}]}


def test_any_worker_records_the_answer_of_one_that_ended_meanwhile(platform):
    refusals, llm = Refusals(platform.dsn), platform.doubles.llm
    worker = platform.orchestration(WORKER__STOP_GRACE="0.5")
    llm.behaviour("slow", delay_ms=1500)
    run_id = platform.begin(ASK)
    eventually(lambda: llm.stats()["in_flight"])
    with refusals.everything("53100"):
        eventually(lambda: worker.events("outcome_waits"))
        assert worker.terminate() == 0
        with platform.redis.client() as store:
            assert store.hlen(KEY) == 1
            assert 0 < store.ttl(KEY) <= 7 * 86_400
        other = platform.orchestration()
        eventually(lambda: other.events("parked_output_waits"))
    assert platform.db.ended(run_id) == "succeeded"
    assert llm.stats()["prompt_counts"] == {"paid": 1}
    with platform.redis.client() as store:
        eventually(lambda: not store.exists(KEY))
