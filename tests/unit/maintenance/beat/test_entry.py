"""Due slots of an entry: none twice, none lost unreported, never more than are on time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_contracts import WARM_EMBEDDING_CACHE, Lane
from citadel_maintenance.beat.entry import Due, Entry
from citadel_maintenance.beat.slots import Crontab, Interval

HOUR = 3_600_000


def entry(slots, *, on_time=5000, latest=None):
    return Entry(
        name="warm",
        spec=WARM_EMBEDDING_CACHE,
        slots=slots,
        kwargs={"texts": []},
        lane=Lane.BATCH,
        on_time=on_time,
        latest=latest,
    )


RUN_ONCE, SKIP = None, 0
schedules = st.one_of(st.integers(50, 100_000).map(Interval), st.just(Crontab("*/2 * * * *")))
looks = st.lists(st.integers(-20_000, 300_000), min_size=1, max_size=30)


@given(schedules, st.integers(1, 60_000), st.sampled_from([RUN_ONCE, SKIP, 700]), looks)
def test_every_slot_runs_or_is_missed_exactly_once(slots, on_time, latest, steps):
    """The times are arbitrary, and the clock is set back a little now and then."""
    subject = entry(slots, on_time=on_time, latest=latest)
    now = 1_700_000_000_123
    begun = settled = slots.latest(now)
    seen = []
    for step in steps:
        now += step
        due = subject.due(settled, now)
        if due.missed is not None:
            seen += slots_between(slots, *due.missed)
        seen += due.run
        settled = seen[-1] if seen else settled
        assert settled >= slots.latest(now)
    assert seen == slots_between(slots, slots.following(begun), settled) if seen else settled == begun


@given(schedules, st.integers(1, 60_000), st.integers(0, 10**9))
def test_no_more_slots_run_at_once_than_are_on_time(slots, on_time, gap):
    subject = entry(slots, on_time=on_time)
    now = 1_700_000_000_123
    due = subject.due(slots.latest(now - gap), now)
    assert len(due.run) <= max(1, len(slots_between(slots, now - on_time, now)))


@given(schedules, st.integers(1, 60_000), st.integers(0, 10**9))
def test_an_entry_that_skips_missed_slots_runs_none_late(slots, on_time, gap):
    now = 1_700_000_000_123
    due = entry(slots, on_time=on_time, latest=SKIP).due(slots.latest(now - gap), now)
    assert all(now - on_time <= slot <= now for slot in due.run)


def slots_between(slots, first, last):
    found, at = [], slots.following(first - 1)
    while at <= last:
        found.append(at)
        at = slots.following(at)
    return found


@pytest.mark.parametrize(
    ("latest", "hours", "expected"),
    [
        (RUN_ONCE, 0, Due()),
        (RUN_ONCE, 1, Due(run=(11 * HOUR,))),
        (RUN_ONCE, 3, Due(run=(13 * HOUR,), missed=(11 * HOUR, 12 * HOUR))),
        (SKIP, 3, Due(missed=(11 * HOUR, 13 * HOUR))),
        (HOUR // 4, 3, Due(missed=(11 * HOUR, 13 * HOUR))),
        (HOUR // 2, 3, Due(run=(13 * HOUR,), missed=(11 * HOUR, 12 * HOUR))),
    ],
)
def test_missed_slots_are_skipped_or_the_last_one_runs(latest, hours, expected):
    assert entry(Interval(HOUR), latest=latest).due(10 * HOUR, (10 + hours) * HOUR + HOUR // 2) == expected


def test_all_slots_on_time_run():
    due = entry(Interval(1000), on_time=3000).due(0, 10_500)
    assert due == Due(run=(8000, 9000, 10_000), missed=(1000, 7000))


@pytest.mark.parametrize("now", [10 * HOUR - 1, 9 * HOUR, 0])
def test_no_slot_runs_again_after_the_clock_was_set_back(now):
    assert entry(Interval(HOUR)).due(10 * HOUR, now) == Due()


def test_a_settled_slot_far_in_the_future_is_recognized():
    hourly = entry(Interval(HOUR))
    assert not hourly.is_far_ahead(10 * HOUR, 9 * HOUR)
    assert hourly.is_far_ahead(10_000 * HOUR, 9 * HOUR)
    daily = entry(Crontab("0 3 * * *"))
    assert not daily.is_far_ahead(27 * HOUR, 26 * HOUR)
    assert not daily.is_far_ahead(27 * HOUR, 2 * HOUR)


def test_task_ids_depend_on_the_slot_alone():
    one, other = entry(Interval(HOUR)), entry(Interval(HOUR // 2))
    assert one.task_id(HOUR) == other.task_id(HOUR) != one.task_id(2 * HOUR)


@pytest.mark.parametrize(
    ("slots", "seconds"),
    [
        (Interval(1000), 60),
        (Interval(300_000), 600),
        (Interval(HOUR), 7200),
        (Crontab("10 * * * *"), 7200),
        (Crontab("50 3 * * *"), 86400),
    ],
)
def test_messages_expire_after_two_periods(slots, seconds):
    assert entry(slots).expiry(10 * HOUR) == seconds
