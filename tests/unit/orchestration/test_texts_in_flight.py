"""When the texts of a step in flight are looked for, and what has to be found for them to be sent again."""

import uuid

import pytest

from citadel_common.deadline import Deadline
from citadel_orchestration.db.models import StepClaim, StepRef
from citadel_orchestration.engine import in_flight
from citadel_orchestration.engine.in_flight import StepsInFlight


class Step:
    """One step that waits for vectors; `look` is what the sweeper does."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(in_flight.time, "monotonic", lambda: self.now)
        self.steps = StepsInFlight()
        self.claim = StepClaim(
            ref=StepRef(run_id=uuid.uuid4(), step_id="a"),
            attempt=1, tries=0, workflow_id="w", kind="workflow", lane=3, depth=0, run_deadline=None,
        )  # fmt: skip
        self.steps.add(self.claim)
        self.send()

    def send(self):
        self.steps.awaits_vectors(self.claim, Deadline.after(1e9))

    def look(self, *, missing, at_once=False):
        """Let time pass until the step is due; return why its texts are to be sent again."""
        self.now += 0.0 if at_once else self.wait()
        return self.steps.looked_at(self.claim, missing=missing, at_once=at_once)

    def wait(self):
        """Return the seconds until the step is due."""
        waited = 0.0
        while not self.steps.to_look_at(everything=False):
            self.now += 0.5
            waited += 0.5
        self.now -= waited
        return waited


@pytest.fixture
def step(monkeypatch):
    return Step(monkeypatch)


def test_texts_that_are_there_are_never_sent_again_and_looked_for_ever_less(step):
    waits = []
    for _ in range(200):
        waits.append(step.wait())
        assert step.look(missing=False) is None
    assert waits == sorted(waits)
    assert waits[-1] == 60


def test_texts_are_sent_again_when_they_are_missing_twice(step):
    assert step.look(missing=True) is None
    assert step.look(missing=True) == "missing"


def test_an_answer_that_an_engine_has_in_its_hands_is_not_asked_for_again(step):
    assert step.look(missing=True) is None
    assert step.look(missing=False) is None
    assert step.look(missing=True) is None


def test_after_a_loss_of_data_once_is_enough(step):
    assert step.look(missing=True, at_once=True) == "missing"


def test_texts_that_the_broker_refused_are_sent_again_unless_it_has_taken_them_after_all(step):
    step.steps.was_not_sent(step.claim)
    assert step.look(missing=True) == "refused"
    step.send()
    step.steps.was_not_sent(step.claim)
    assert step.look(missing=False) is None


def test_texts_that_end_their_workers_are_sent_ever_less(step):
    waits = []
    for _ in range(12):
        waits.append(step.wait())
        step.send()
    assert waits == sorted(waits)
    assert waits[-1] == 1800
