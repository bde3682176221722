"""When a worker that cannot renew its leases ends its calls; a lease lasts 10 seconds."""

import uuid

import pytest
from redis import ConnectionError as NoAnswer

from citadel_orchestration.db.models import StepClaim, StepRef
from citadel_orchestration.engine import lease_guard
from citadel_orchestration.engine.in_flight import StepsInFlight
from citadel_orchestration.engine.lease_guard import LeaseGuard

LEASE = 10.0
TICK = 0.05
HALF = LEASE / 2
"""Seconds after which others take expired leases, once they can write again."""


class Call:
    """A call of an LLM that does not end."""

    has_ended = cancelled = False

    def cancel(self):
        self.cancelled = True


class World:
    """This worker, and another one whose notes come every two seconds while it can write."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        self.broker_answers = True
        self.others_write_from, self.others_write_until = 0.0, float("inf")
        self.notes = []
        monkeypatch.setattr(lease_guard.time, "monotonic", lambda: self.now)
        self.in_flight, self.call = StepsInFlight(), Call()
        self.guard = LeaseGuard(self.in_flight, self, lease=LEASE)
        claim = StepClaim(
            ref=StepRef(run_id=uuid.uuid4(), step_id="a"),
            attempt=1, tries=0, workflow_id="w", kind="workflow", lane=3, depth=0, run_deadline=None,
            leased_at=self.now,
        )  # fmt: skip
        self.in_flight.add(claim)
        self.in_flight.executes(claim, self.call)
        self.claim = claim

    def note(self, age):
        self._answer()
        self.notes.append(self.now - age)

    def newest_of_others(self):
        self._answer()
        last = min(self.now, self.others_write_until) // 2 * 2
        return self.now - last if last >= self.others_write_from else None

    def _answer(self):
        if not self.broker_answers:
            raise NoAnswer

    def renew(self):
        began = self.guard.tries()
        self.guard.succeeded(began, wrote=True)
        self.in_flight.renewed([self.claim], began)

    def pass_until(self, seconds, *, failing=True):
        """Let time pass, to so many seconds after the start; return when the call was ended, None if it was not."""
        while self.now < 1000.0 + seconds:
            self.now += TICK
            if failing:
                self.guard.tries()
            self.guard.ask()
            self.guard.guard()
            if self.call.cancelled:
                return self.now - 1000.0
        return None


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_worker_that_is_cut_off_ends_its_calls_just_before_its_lease(world):
    ended = world.pass_until(60)
    assert 0.8 * LEASE < ended < LEASE
    assert not world.in_flight.claims()


def test_a_worker_without_the_broker_too_ends_its_calls_as_early(world):
    world.broker_answers = False
    assert 0.8 * LEASE < world.pass_until(60) < LEASE


def test_calls_go_on_while_nobody_can_write(world):
    world.others_write_until = 0.0
    assert world.pass_until(600) is None


def test_an_outage_that_begins_between_two_workers_writes_ends_no_call(world):
    world.others_write_until = 1000.0 + LEASE / 20
    assert world.pass_until(600) is None


def test_after_an_outage_a_worker_has_time_to_renew(world):
    world.others_write_from = 1100.0
    assert world.pass_until(100 + 0.3 * LEASE) is None
    world.renew()
    assert world.pass_until(100 + 0.9 * LEASE, failing=False) is None


def test_after_an_outage_calls_end_before_others_take_the_steps_over(world):
    world.others_write_from = 1100.0
    assert 100 < world.pass_until(600) < 100 + HALF


def test_calls_go_on_while_leases_are_renewed(world):
    for second in range(100):
        world.renew()
        assert world.pass_until(second + 1, failing=False) is None


def test_a_renewal_counts_from_before_it_was_sent(world):
    began = world.guard.tries()
    world.now += 0.5 * LEASE  # its answer took so long
    world.guard.succeeded(began, wrote=True)
    world.in_flight.renewed([world.claim], began)
    assert world.pass_until(60) < LEASE


def test_a_step_that_has_ended_keeps_its_place(world):
    world.call.has_ended = True
    assert world.pass_until(60) is None
    assert world.in_flight.claims() == [world.claim]
