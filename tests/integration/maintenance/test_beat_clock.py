"""A candidate on a host whose clock is wrong, and is set while it leads."""

from tests.support.beat import assert_every_slot_once, entry, messages, open_beats, slots_of
from tests.support.host_clock import HOUR, HostClock

PERIOD = 200
"""Milliseconds."""


def test_slots_are_those_of_the_brokers_clock(redis_server):
    with HostClock(HOUR) as clock, open_beats(redis_server, entry("quick", every=f"{PERIOD}ms")) as beats:
        began = beats.store.time()[0] * 1000
        with clock.host():
            ahead = beats.start()
        for step in (-2 * HOUR, HOUR, 0):
            beats.wait_for_more(4)
            clock.step(step)
        published = messages(beats.store)
        ended = (beats.store.time()[0] + 1) * 1000
        assert ahead.events("clock_set_back") == []
    assert_every_slot_once(published, {"quick": PERIOD})
    slots = slots_of(published)["quick"]
    assert began - PERIOD <= slots[0]
    assert slots[-1] <= ended
