"""Slots at which nobody led, and clocks that jump: an hourly entry whose mark a test moves."""

import time

import pytest

from citadel_common.schedule import SLOTS, Schedule
from tests.support.beat import entry, messages, open_beats, slots_of
from tests.support.polling import eventually

HOUR = 3_600_000
NAMES = ("bounded", "once", "skipping", "usual")
ENTRIES = [
    entry("bounded", every="1h", max_lateness="1ms"),
    entry("once", crontab="0 * * * *", missed="run_once"),
    entry("skipping", every="1h", missed="skip"),
    entry("usual", every="1h"),
    entry("pulse", every="100ms"),
]


@pytest.fixture
def beats(redis_server):
    """Every slot that is not met to the millisecond is late."""
    with open_beats(redis_server, *ENTRIES, BEAT__ON_TIME="0.001") as beats:
        yield beats


def hourly(beats):
    return {name: slots for name, slots in slots_of(messages(beats.store)).items() if name != "pulse"}


@pytest.fixture
def marks(beats):
    """The last slot of each hourly entry, as a candidate leaves it that ran in this hour."""
    marks = dict.fromkeys(NAMES, int(time.time() * 1000) // HOUR * HOUR)
    beats.store.hset(SLOTS, mapping=marks)
    return marks


def run_for_a_while(beats):
    """Start a candidate, let it look at all entries, and stop it."""
    beats.start()
    beats.wait_for_more(3)
    beats.stop()


def move_marks(beats, by):
    for name in NAMES:
        beats.store.hincrby(SLOTS, name, by)


def test_a_new_entry_has_missed_nothing(beats):
    run_for_a_while(beats)
    assert hourly(beats) == {}
    found = {name.decode(): int(mark) for name, mark in beats.store.hgetall(SLOTS).items()}
    assert found.keys() == {*NAMES, "pulse"}
    assert {found[name] for name in NAMES} == {found["pulse"] // HOUR * HOUR}


def test_the_last_missed_slot_is_run_once_or_skipped(beats, marks):
    move_marks(beats, -5 * HOUR)
    run_for_a_while(beats)
    run_for_a_while(beats)
    assert hourly(beats) == {name: [marks[name]] for name in ("once", "usual")}
    assert {name: int(beats.store.hget(SLOTS, name)) for name in NAMES} == marks


def test_missed_slots_are_logged(beats, marks):
    move_marks(beats, -5 * HOUR)
    beat = beats.start()
    beat.wait_for("slot_missed", times=4)
    missed = {event["entry"]: event for event in beat.events("slot_missed") if event["entry"] in NAMES}
    assert missed.keys() == set(NAMES)
    assert missed["once"]["last"] < missed["skipping"]["last"]


def test_a_clock_that_was_set_back_a_little_is_waited_for(beats, marks):
    move_marks(beats, HOUR)
    run_for_a_while(beats)
    assert hourly(beats) == {}


def test_a_clock_that_was_far_ahead_does_not_stop_an_entry(beats, marks):
    move_marks(beats, 1000 * HOUR)
    beat = beats.start()
    beat.wait_for("clock_set_back", times=len(NAMES))
    eventually(lambda: int(beats.store.hget(SLOTS, "usual")) == marks["usual"])
    beats.stop()
    next_at = {known.name: known.next_at for known in Schedule(beats.store).entries()}
    assert hourly(beats) == {}
    assert next_at["usual"] * 1000 >= marks["usual"] + HOUR
