"""Missed slots and clocks that jump, with hourly entries whose settled slot a test moves."""

import time

import pytest

from citadel_maintenance.beat.schedule import SLOTS
from tests.support.beat import Schedule, entry, messages, open_beats, slots_of
from tests.support.polling import eventually

HOUR = 3_600_000
NAMES = ("bounded", "once", "skipping", "usual")
ENTRIES = [
    entry("bounded", every="1h", max_lateness="1ms"),
    entry("once", crontab="0 * * * *", missed="run_once"),
    entry("skipping", every="1h", missed="skip"),
    entry("usual", every="1h"),
    entry("frequent", every="100ms"),
]


@pytest.fixture
def beats(redis_server):
    """Yield candidates for which a slot is late after a millisecond."""
    with open_beats(redis_server, *ENTRIES, BEAT__ON_TIME="0.001") as beats:
        yield beats


def hourly(beats):
    return {name: slots for name, slots in slots_of(messages(beats.store)).items() if name != "frequent"}


@pytest.fixture
def settled(beats):
    """Set the settled slot of each hourly entry to this hour, as a candidate that ran in it would."""
    slots = dict.fromkeys(NAMES, int(time.time() * 1000) // HOUR * HOUR)
    beats.store.hset(SLOTS, mapping=slots)
    return slots


def run_for_a_while(beats):
    """Start a candidate, let it process all entries, and stop it."""
    beats.start()
    beats.wait_for_more(3)
    beats.stop()


def move_settled(beats, by):
    for name in NAMES:
        beats.store.hincrby(SLOTS, name, by)


def test_a_new_entry_has_missed_no_slot(beats):
    run_for_a_while(beats)
    assert hourly(beats) == {}
    found = {name.decode(): int(slot) for name, slot in beats.store.hgetall(SLOTS).items()}
    assert found.keys() == {*NAMES, "frequent"}
    assert {found[name] for name in NAMES} == {found["frequent"] // HOUR * HOUR}


def test_the_last_missed_slot_runs_once_or_is_skipped(beats, settled):
    move_settled(beats, -5 * HOUR)
    run_for_a_while(beats)
    run_for_a_while(beats)
    assert hourly(beats) == {name: [settled[name]] for name in ("once", "usual")}
    assert {name: int(beats.store.hget(SLOTS, name)) for name in NAMES} == settled


def test_missed_slots_are_logged(beats, settled):
    move_settled(beats, -5 * HOUR)
    beat = beats.start()
    beat.wait_for("slot_missed", times=4)
    missed = {event["entry"]: event for event in beat.events("slot_missed") if event["entry"] in NAMES}
    assert missed.keys() == set(NAMES)
    assert missed["once"]["last"] < missed["skipping"]["last"]


def test_an_entry_waits_when_the_clock_was_set_back_a_little(beats, settled):
    move_settled(beats, HOUR)
    run_for_a_while(beats)
    assert hourly(beats) == {}


def test_an_entry_goes_on_when_the_clock_was_far_ahead(beats, settled):
    move_settled(beats, 1000 * HOUR)
    beat = beats.start()
    beat.wait_for("clock_set_back", times=len(NAMES))
    eventually(lambda: int(beats.store.hget(SLOTS, "usual")) == settled["usual"])
    beats.stop()
    next_at = {known.name: known.next_at for known in Schedule(beats.store).entries()}
    assert hourly(beats) == {}
    assert next_at["usual"] * 1000 >= settled["usual"] + HOUR
