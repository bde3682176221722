"""How long a clean-up runs, how it pauses, and what stops it."""

import threading

import pytest

from citadel_maintenance.jobs.throttle import Throttle


class FakeLease:
    """A lease that is held or lost, as `held` says."""

    def __init__(self, *, ttl: float = 0.0, held: bool = True) -> None:
        self.ttl = ttl
        self.held = held

    def renew(self) -> bool:
        return self.held


class FakeDeadline:
    """A deadline with `remaining` seconds left, whatever the time."""

    def __init__(self, remaining: float = 60.0) -> None:
        self.remaining = remaining


def throttle(
    *,
    deadline: FakeDeadline | None = None,
    lease: FakeLease | None = None,
    stopping: threading.Event | None = None,
    duty_cycle: float = 1.0,
) -> Throttle:
    return Throttle(
        deadline=deadline or FakeDeadline(),
        stopping=stopping or threading.Event(),
        lease=lease or FakeLease(),
        duty_cycle=duty_cycle,
    )


def stopped() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_batches_follow_each_other_while_nothing_stops_them():
    running = throttle()
    assert [number for number, _ in zip(range(3), running.batches(), strict=False)] == [0, 1, 2]
    assert running.stop_reason is None


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"stopping": stopped()}, "the worker is stopping"),
        ({"deadline": FakeDeadline(-1)}, "the time limit is reached"),
        ({"lease": FakeLease(held=False)}, "another run has taken over"),
    ],
)
def test_a_run_that_must_stop_gets_no_batch_and_a_reason(settings, reason):
    ended = throttle(**settings)
    assert list(ended.batches()) == []
    assert ended.stop_reason == reason


def test_a_lost_lease_is_noticed_only_when_a_renewal_is_due():
    assert next(throttle(lease=FakeLease(ttl=3600, held=False)).batches(), "no batch") is None


def test_a_stopped_run_stays_stopped_when_its_reason_goes_away():
    lease = FakeLease(held=False)
    ended = throttle(lease=lease)
    assert list(ended.batches()) == []
    lease.held = True
    assert list(ended.batches()) == []


def test_a_stop_of_the_worker_ends_the_pause_at_once():
    stopping = threading.Event()
    run = throttle(stopping=stopping, duty_cycle=0.0001)
    for _ in run.batches():
        stopping.set()
    assert run.stop_reason == "the worker is stopping"


def test_the_time_limit_ends_the_pause():
    deadline = FakeDeadline()
    run = throttle(deadline=deadline, duty_cycle=1e-9)
    for _ in run.batches():
        deadline.remaining = -1
    assert run.stop_reason == "the time limit is reached"
    assert run.remaining == 0.0
