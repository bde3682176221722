"""An LLM server that is away for some seconds costs no step an attempt."""

from tests.support.polling import eventually

RUNS = 20


def ask(number):
    step = {"step_id": "a", "type": "llm_query", "parameters": {"query": f"q{number}"}, "retry": {"max_attempts": 1}}
    return {"steps": [step]}


def test_runs_wait_for_a_server_that_restarts(workers):
    workers.doubles.llm.kill()
    run_ids = [workers.begin(ask(number)) for number in range(RUNS)]
    eventually(lambda: all(workers.db.steps(run_id) == {"a": "running"} for run_id in run_ids))
    workers.doubles.llm.restart_same_port()
    assert {workers.db.ended(run_id) for run_id in run_ids} == {"succeeded"}
    assert workers.db.rows("SELECT DISTINCT attempt, tries FROM steps WHERE run_id = ANY(%s)", run_ids) == [(1, 0)]
    assert workers.doubles.llm.stats()["prompt_counts"] == {f"q{number}": 1 for number in range(RUNS)}


def test_runs_under_way_go_on_after_a_server_was_killed(workers):
    workers.doubles.llm.behaviour("hang")
    run_ids = [workers.begin(ask(number)) for number in range(RUNS)]
    eventually(lambda: workers.doubles.llm.stats()["in_flight"] == RUNS)
    workers.doubles.llm.restart_same_port()
    assert {workers.db.ended(run_id) for run_id in run_ids} == {"succeeded"}
    assert workers.db.rows("SELECT DISTINCT attempt, tries FROM steps WHERE run_id = ANY(%s)", run_ids) == [(1, 0)]
