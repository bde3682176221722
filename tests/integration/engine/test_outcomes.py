"""Ends of the waits for PostgreSQL: it fails for good, the patience is over, the output comes too late."""

import functools

import pytest

from citadel_orchestration.db.models import StepRef
from citadel_orchestration.engine import outcomes
from citadel_orchestration.engine.fair_threads import FairThreadPool
from citadel_orchestration.engine.in_flight import StepsInFlight
from citadel_orchestration.engine.outcomes import Outcome, Outcomes
from citadel_orchestration.engine.parked_outputs import KEY, ParkedOutputs
from tests.support.polling import eventually
from tests.support.refusals import Refusals

OUTPUT = {"response": "paid", "data": {}}


class Waiting:
    """A claimed step whose outcome waits for PostgreSQL."""

    def __init__(self, db, store):
        self.db, self.store = db, store
        self.run_id = db.submit({"steps": [{"step_id": "a", "type": "llm_query", "parameters": {"query": "q"}}]})
        [self.claim] = db.transitions.start(StepRef(run_id=self.run_id, step_id="a")).claims
        self.in_flight, self.parked = StepsInFlight(), ParkedOutputs(store)
        self.in_flight.add(self.claim)
        self.late = []
        self.outcomes = Outcomes(
            self.in_flight,
            lambda _: None,
            FairThreadPool(2, per_key=1, name="test"),
            self.parked,
            late=self.late.append,
        )

    def record(self):
        ref, attempt = self.claim.ref, self.claim.attempt
        succeed = functools.partial(self.db.transitions.succeed, ref, attempt, OUTPUT)
        self.outcomes.record(
            Outcome(
                claim=self.claim,
                transition=succeed,
                on_refusal=lambda error: self.db.transitions.fail(ref, attempt, error),
                output=OUTPUT,
            )
        )

    def restore(self):
        self.parked.restore(self.db.transitions.succeed)


@pytest.fixture
def refusals(postgres_dsn):
    return Refusals(postgres_dsn)


@pytest.fixture
def waiting(db, store):
    store.delete(KEY)
    waiting = Waiting(db, store)
    yield waiting
    waiting.outcomes.close()
    store.delete(KEY)


def test_a_server_that_fails_again_and_again_fails_the_step(waiting, refusals, monkeypatch):
    monkeypatch.setattr(outcomes, "PATIENCE_WITH_FAILURES", 0.3)
    refusals.of_outputs({waiting.run_id: "XX000"})
    waiting.record()
    assert waiting.db.ended(waiting.run_id) == "failed"
    assert waiting.db.error(waiting.run_id)["code"] == "store_rejected"


def test_an_output_that_has_waited_for_long_is_parked_and_recorded_later(waiting, refusals, monkeypatch):
    monkeypatch.setattr(outcomes, "PATIENCE", 0.3)
    refusals.of_outputs({waiting.run_id: "53100"})
    waiting.record()
    eventually(lambda: waiting.store.hlen(KEY))
    eventually(lambda: not len(waiting.in_flight))
    waiting.restore()
    assert waiting.store.hlen(KEY) == 1
    refusals.end()
    waiting.restore()
    assert waiting.db.status(waiting.run_id) == "succeeded"
    assert not waiting.store.exists(KEY)


def test_a_parked_output_of_an_earlier_attempt_changes_nothing(waiting):
    waiting.parked.park(waiting.claim, OUTPUT)
    waiting.db.rows("UPDATE steps SET attempt = attempt + 1 WHERE run_id = %s", waiting.run_id)
    waiting.restore()
    assert waiting.db.steps(waiting.run_id) == {"a": "running"}
    assert not waiting.store.exists(KEY)


def test_a_parked_output_is_forgotten_after_its_time(waiting):
    waiting.parked.park(waiting.claim, OUTPUT)
    [(name, value)] = waiting.store.hgetall(KEY).items()
    waiting.store.hset(KEY, name, b"1\n" + value.partition(b"\n")[2])  # as if it had ended in 1970
    waiting.restore()
    assert waiting.db.steps(waiting.run_id) == {"a": "running"}
    assert not waiting.store.exists(KEY)
