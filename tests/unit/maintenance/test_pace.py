"""How long a clean-up goes on, and what cuts it off."""

import threading

import pytest

from citadel_common.deadline import Deadline
from citadel_maintenance.pace import Pace


class Held:
    """A lease; `held` says whether it still is."""

    def __init__(self, *, ttl: float = 0.0, held: bool = True) -> None:
        self.ttl = ttl
        self.held = held

    def renew(self) -> bool:
        return self.held


def pace(*, seconds: float = 60.0, lease: Held | None = None, stop: bool = False, duty: float = 1.0) -> Pace:
    stopping = threading.Event()
    if stop:
        stopping.set()
    return Pace(deadline=Deadline.after(seconds), stopping=stopping, lease=lease or Held(), duty=duty)


def test_it_goes_on_while_nothing_is_against_it():
    steady = pace()
    assert steady.goes_on()
    assert steady.cut_by is None


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        ({"stop": True}, "the worker is stopping"),
        ({"seconds": -1}, "the time limit is reached"),
        ({"lease": Held(held=False)}, "another run has taken over"),
    ],
)
def test_it_ends_and_says_why(cut, reason):
    ending = pace(**cut)
    assert not ending.goes_on()
    assert ending.cut_by == reason


def test_a_lost_lease_is_noticed_once_it_is_due_for_renewal():
    assert pace(lease=Held(ttl=3600, held=False)).goes_on()


def test_what_has_cut_it_stays_so():
    lease = Held(held=False)
    ending = pace(lease=lease)
    ending.goes_on()
    lease.held = True
    assert not ending.goes_on()


def test_a_stop_ends_the_pause_at_once():
    stopping = pace(stop=True, duty=0.0001)
    with stopping.batch():
        pass
    assert not stopping.goes_on()


def test_no_pause_outlasts_the_deadline():
    ending = pace(seconds=-1, duty=0.0001)
    with ending.batch():
        pass
    assert not ending.goes_on()
    assert ending.remaining == 0.0
