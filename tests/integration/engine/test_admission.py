"""An LLM endpoint's limit holds for the fleet, and waiting for it is no attempt."""

import pytest

from citadel_orchestration.db import lost_work, views
from tests.support.polling import eventually

LIMIT = 4
ITEMS = 64
ENDPOINT = "LLM__ENDPOINTS__main__MAX_CONCURRENCY"


@pytest.fixture(scope="module")
def processes(platform):
    """Return two orchestration workers, whose endpoint takes a few calls at once."""
    return [platform.orchestration(**{ENDPOINT: LIMIT}) for _ in range(2)]


@pytest.fixture(scope="module")
def fleet(platform, processes):
    """Return the platform of the two workers."""
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


def full(fleet, llm, *, behind):
    """Begin a run whose items take all slots; the others wait behind."""
    run_id = fleet.begin(fan_out(LIMIT + behind, "full"))
    eventually(lambda: len(asked(llm)) == LIMIT and waiting(fleet, run_id) == behind)
    return run_id


def test_a_single_question_is_not_held_up_by_a_wide_run(fleet, llm):
    wide = full(fleet, llm, behind=40)
    single = fleet.begin({"steps": [ask("single")]})
    eventually(lambda: waiting(fleet, single) == 1)
    llm.release(LIMIT)
    eventually(lambda: len(asked(llm)) == 2 * LIMIT)
    assert "single" in asked(llm)
    llm.release(50)
    assert {fleet.db.ended(run_id) for run_id in (wide, single)} == {"succeeded"}
    assert llm.stats()["max_in_flight"] == LIMIT


def test_a_step_that_waits_too_long_for_its_start_fails_and_says_what_it_waited_for(fleet, llm):
    full(fleet, llm, behind=0)
    late = fleet.begin({"steps": [ask("late", start_timeout="300ms", retry={"max_attempts": 5})]})
    assert fleet.db.ended(late) == "failed"
    error = fleet.db.error(late)
    assert error["code"] == "start_timed_out"
    assert "did not start within 0.3 s" in error["message"]
    assert "for llm:main: 4 of its 4 slots in the fleet are taken" in error["message"]
    assert fleet.db.rows("SELECT attempt - uncounted, tries FROM steps WHERE run_id = %s", late) == [(0, 0)]
    assert "late" not in asked(llm)


def test_no_worker_calls_an_endpoint_that_asked_to_be_left_alone(fleet, llm):
    llm.behaviour("ok")
    refusal = {"status": 429, "body": {"error": {"message": "slow down"}}, "headers": {"retry-after": "3"}}
    llm.script({"raw": refusal})
    first = fleet.begin({"steps": [ask("first")]})
    eventually(lambda: fleet.db.rows("SELECT cooling_until FROM resources WHERE cooling_until > now()"))
    others = [fleet.begin({"steps": [ask(f"other {number}")]}) for number in range(12)]
    eventually(lambda: all(waiting(fleet, run_id) == 1 for run_id in others))
    assert asked(llm) == {"first": 1}
    assert {fleet.db.ended(run_id) for run_id in (first, *others)} == {"succeeded"}
    counted = fleet.db.rows("SELECT DISTINCT attempt - uncounted, tries FROM steps WHERE run_id = ANY(%s)", others)
    assert counted == [(1, 0)]


def test_a_view_names_what_items_wait_for_and_a_pause_ends_the_wait(fleet, llm):
    run_id = full(fleet, llm, behind=6)
    with fleet.db.database.cursor() as cursor:
        definition = fleet.db.definitions.get(run_id, cursor)
        [step] = views.steps_view(cursor, views.summary_of(cursor, run_id), definition)
    assert (step.waiting_for, step.items.waiting) == ("llm:main", 6)
    assert step.waiting_since is not None
    fleet.db.commands.pause(run_id)
    assert waiting(fleet, run_id) == 0
    llm.release(LIMIT)
    eventually(lambda: fleet.db.items(run_id, "a").count("succeeded") == LIMIT)
    assert len(asked(llm)) == LIMIT
    fleet.db.commands.resume(run_id)
    llm.release(6)
    assert fleet.db.ended(run_id) == "succeeded"
    assert attempts(fleet, run_id) == [(1, 0, LIMIT + 6)]


def test_a_cancelled_run_leaves_the_queue_at_once(fleet, llm):
    run_id = full(fleet, llm, behind=6)
    fleet.db.commands.cancel(run_id)
    assert waiting(fleet, run_id) == 0
    other = fleet.begin({"steps": [ask("other")]})
    eventually(lambda: "other" in asked(llm))
    llm.release(1)
    assert fleet.db.ended(other) == "succeeded"
    assert len(asked(llm)) == LIMIT + 1


def test_the_slots_of_a_killed_worker_go_to_another_one_and_redis_is_not_needed(fleet, processes, llm):
    run_id = full(fleet, llm, behind=6)
    fleet.redis.flush()
    owners = fleet.db.rows("SELECT owner, count(*) FROM slots WHERE token IS NOT NULL GROUP BY 1 ORDER BY 2 DESC")
    doomed = next(process for process in processes if f":{process.pid}:" in owners[0][0])
    doomed.kill()
    eventually(lambda: llm.stats()["in_flight"] == LIMIT and len(asked(llm)) >= LIMIT + 1)
    llm.release(100)
    assert fleet.db.ended(run_id) == "succeeded"
    assert fleet.db.rows("SELECT count(*) FROM slots WHERE token IS NOT NULL AND owner = %s", owners[0][0]) == [(0,)]
    assert {tries for _, tries, _ in attempts(fleet, run_id)} == {0}
    assert llm.stats()["max_in_flight"] == LIMIT


def vectors(**others):
    parameters = {"text": "t", "model": "all-minilm"}
    return {"steps": [{"step_id": "e", "type": "embedding", "parameters": parameters, **others}]}


def test_texts_wait_for_an_embeddings_worker_without_an_attempt(fleet):
    late = fleet.begin(vectors(start_timeout="200ms", timeout="100ms"))
    patient = fleet.begin(vectors(timeout="5s"))
    assert fleet.db.ended(late) == "failed"
    error = fleet.db.error(late)
    assert error["code"] == "start_timed_out"
    assert "no embeddings worker answered within 0.2 s (start_timeout) and 0.1 s (timeout)" in error["message"]
    past = "SELECT started_at < now() - interval '5.5 s' FROM steps WHERE run_id = %s"
    eventually(lambda: fleet.db.rows(past, patient) == [(True,)])
    fleet.embeddings()
    assert fleet.db.ended(patient) == "succeeded", fleet.db.error(patient)
    assert fleet.db.rows("SELECT attempt, tries FROM steps WHERE run_id = %s", patient) == [(1, 0)]


def test_a_step_that_no_worker_has_room_for_fails_once_its_start_is_late(db):
    step = ask("q", start_timeout=0.001)
    run_id = db.submit({"steps": [step]})
    db.rows("UPDATE steps SET lease_until = now() - interval '1 second' WHERE run_id = %s", run_id)
    found = eventually(lambda: [late for late in db.find(lost_work.late_and_ready) if late[0].run_id == run_id])
    for late in found * 2:
        db.recovery.never_started(*late)
    assert (db.status(run_id), db.error(run_id)["code"]) == ("failed", "start_timed_out")
    assert "for a worker: none had room for it" in db.error(run_id)["message"]
