"""Answers that were paid for, and a PostgreSQL that does not take them: now, or never."""

import pytest

from tests.support.polling import eventually
from tests.support.refusals import ROW, WORDS, Refusals

PASSING = [
    "08006",
    "25006",
    "25P03",
    "25P04",
    "26000",
    "28000",
    "40001",
    "40P01",
    "42501",
    "42703",
    "42883",
    "42P01",
    "53000",
    "53100",
    "53200",
    "53300",
    "53400",
    "55006",
    "55P03",
    "57014",
    "57P01",
    "57P02",
    "57P03",
    "58030",
    "XX001",
    "0A000",
]
FINAL = ["22003", "22021", "22P05", "23514", "40002", "44000", "54000", "54001"]
LEASE_S = 2


def ask(query):
    step = {"step_id": "a", "type": "llm_query", "parameters": {"query": query}, "retry": {"max_attempts": 3}}
    return {"steps": [step]}


@pytest.fixture(scope="module")
def fleet(platform):
    """Two workers, either of which could take the other's steps over."""
    return platform, [platform.orchestration(), platform.orchestration()]


@pytest.fixture
def refusals(platform):
    refusals = Refusals(platform.dsn)
    yield refusals
    refusals.end()


@pytest.fixture
def llm(platform):
    platform.doubles.reset()
    return platform.doubles.llm


def begin(platform, llm, codes):
    """Begin a run for each code, whose question hangs until all are under way; return the codes by run."""
    llm.behaviour("slow", delay_ms=1500)
    return {platform.begin(ask(f"q{code}")): code for code in codes}


def waits(workers, run_id):
    """Return whether the outcome of a run waits in a worker."""
    return any(event.get("run_id") == str(run_id) for worker in workers for event in worker.events("outcome_waits"))


def test_answers_that_the_database_takes_later_are_asked_for_once(fleet, refusals, llm):
    platform, workers = fleet
    runs = begin(platform, llm, PASSING)
    refusals.of_outputs(runs)
    eventually(lambda: all(waits(workers, run_id) for run_id in runs))
    refusals.end()
    assert {code: platform.db.ended(run_id) for run_id, code in runs.items()} == dict.fromkeys(PASSING, "succeeded")
    assert llm.stats()["prompt_counts"] == {f"q{code}": 1 for code in PASSING}
    assert platform.db.rows("SELECT DISTINCT attempt, tries FROM steps WHERE run_id = ANY(%s)", list(runs)) == [(1, 0)]


def test_answers_that_the_database_never_takes_fail_their_steps_at_once(fleet, refusals, llm):
    platform, _ = fleet
    runs = begin(platform, llm, FINAL)
    refusals.of_outputs(runs)
    assert {code: platform.db.ended(run_id) for run_id, code in runs.items()} == dict.fromkeys(FINAL, "failed")
    for run_id, code in runs.items():
        error = platform.db.error(run_id)
        assert error["code"] == "store_rejected"
        assert f"SQLSTATE {code}" in error["message"]
        assert not any(words in str(error) for words in (ROW, WORDS))
    assert llm.stats()["prompt_counts"] == {f"q{code}": 1 for code in FINAL}


@pytest.mark.parametrize("code", ["53100", "25006", "42501"])
def test_no_other_worker_repeats_a_call_whose_lease_nobody_could_renew(fleet, refusals, llm, code):
    platform, workers = fleet
    [run_id] = begin(platform, llm, [code])
    eventually(lambda: llm.stats()["in_flight"])
    with refusals.everything(code):
        eventually(lambda: waits(workers, run_id))
        lapsed = "SELECT lease_until < now() - make_interval(secs => %s) FROM steps WHERE run_id = %s"
        eventually(lambda: platform.db.rows(lapsed, LEASE_S, run_id) == [(True,)])
    assert platform.db.ended(run_id) == "succeeded"
    assert llm.stats()["prompt_counts"] == {f"q{code}": 1}


def test_neither_log_nor_metrics_show_what_the_server_quotes(fleet, refusals, llm):
    platform, workers = fleet
    [run_id] = begin(platform, llm, ["53100"])
    refusals.of_outputs({run_id: "53100"})
    eventually(lambda: waits(workers, run_id))
    refusals.end()
    platform.db.ended(run_id)
    failed = [event for worker in workers for event in worker.events("postgres_failed")]
    assert ("full", "53100") in {(event["kind"], event["sqlstate"]) for event in failed}
    for worker in workers:
        assert not any(words in worker.output for words in (ROW, WORDS))
