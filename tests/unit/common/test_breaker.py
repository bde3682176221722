"""Circuit breaker: opens after failures in a row, lets one probe pass, waits longer each time."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_common.breaker import FAILURES, FIRST_PAUSE, Breaker


@dataclass
class Clock:
    """Seconds that the test lets pass."""

    now: float = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock():
    """A clock of the test's own."""
    return Clock()


def fail(breaker, times=FAILURES):
    for _ in range(times):
        breaker.started()
        breaker.failed("reason")


def test_a_breaker_opens_after_failures_in_a_row(clock):
    breaker = Breaker(clock=clock)
    fail(breaker, FAILURES - 1)
    assert breaker.lets_pass
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert (breaker.state, breaker.lets_pass, breaker.last_error) == ("open", False, "reason")


def test_one_probe_passes_after_the_pause(clock):
    breaker = Breaker(clock=clock)
    fail(breaker)
    clock.now += FIRST_PAUSE
    assert (breaker.state, breaker.lets_pass) == ("half_open", True)
    breaker.started()
    assert not breaker.lets_pass
    breaker.succeeded()
    assert (breaker.state, breaker.lets_pass, breaker.failures) == ("closed", True, 0)


def test_an_abandoned_probe_makes_room_for_another(clock):
    breaker = Breaker(clock=clock)
    fail(breaker)
    clock.now += FIRST_PAUSE
    breaker.started()
    breaker.abandoned()
    assert breaker.lets_pass


def test_each_failed_probe_doubles_the_pause_up_to_the_longest(clock):
    breaker = Breaker(clock=clock, longest_pause=3.0)
    fail(breaker)
    pauses = []
    for _ in range(6):
        pauses.append(breaker.open_until - clock.now)
        clock.now = breaker.open_until
        fail(breaker, 1)
    assert pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_breaker_knows_since_when_its_server_fails(clock):
    breaker = Breaker(clock=clock)
    fail(breaker, 1)
    clock.now += 50
    fail(breaker, 1)
    assert breaker.failing_since == 100.0
    breaker.succeeded()
    fail(breaker, 1)
    assert breaker.failing_since == 150.0


@given(st.lists(st.sampled_from(["start", "ok", "fail", "abandon", "wait"])))
def test_a_breaker_lets_a_call_pass_again_whatever_happened(events):
    clock = Clock()
    breaker, under_way = Breaker(clock=clock), 0
    for event in events:
        if event == "start" and breaker.lets_pass:
            breaker.started()
            under_way += 1
        elif event == "wait":
            clock.now += 1
        elif under_way:
            under_way -= 1
            {"ok": breaker.succeeded, "fail": lambda: breaker.failed("x")}.get(event, breaker.abandoned)()
    for _ in range(under_way):
        breaker.failed("x")
    clock.now += 15
    assert breaker.lets_pass
