"""An LLM endpoint's limit holds for the fleet, and waiting for it is no attempt."""

import pytest

from tests.support.polling import eventually

LIMIT = 4
ITEMS = 64
ENDPOINT = "LLM__ENDPOINTS__main__MAX_CONCURRENCY"


@pytest.fixture(scope="module")
def fleet(platform):
    """Two orchestration workers, whose endpoint takes a few calls at once."""
    workers = [platform.orchestration(**{ENDPOINT: LIMIT}) for _ in range(2)]
    platform.workers = workers
    return platform


@pytest.fixture
def llm(fleet):
    """Return the double of the endpoint; it answers what a test releases."""
    fleet.doubles.reset()
    fleet.doubles.llm.behaviour("held")
    yield fleet.doubles.llm
    fleet.doubles.llm.behaviour("ok")
    fleet.doubles.llm.release(10_000)
    fleet.db.all_ended()


def ask(query, step_id="a", **others):
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": query}, **others}


def fan_out(count, name="q", **others):
    each = {"items": list(range(count)), "max_parallel": count}
    return {"steps": [ask(f"{name}${{{{ item }}}}", for_each=each, **others)]}


def asked(llm):
    return llm.stats()["prompt_counts"]


def attempts(fleet, run_id):
    query = "SELECT attempt - uncounted, tries, count(*)::int FROM steps WHERE run_id = %s AND item >= 0 GROUP BY 1, 2"
    return fleet.db.rows(query, run_id)


def waiting(fleet, run_id):
    query = "SELECT count(*) FROM steps WHERE run_id = %s AND status = 'waiting' AND waiting_for = 'llm:main'"
    return fleet.db.rows(query, run_id)[0][0]


def test_items_that_wait_longer_than_their_timeout_succeed_at_their_first_attempt(fleet, llm):
    llm.behaviour("slow", delay_ms=500)
    run_id = fleet.begin(fan_out(ITEMS, timeout="3s"))
    assert fleet.db.ended(run_id) == "succeeded", fleet.db.error(run_id)
    assert attempts(fleet, run_id) == [(1, 0, ITEMS)]
    assert llm.stats()["max_in_flight"] == LIMIT
