"""Slots: aligned, in order, complete, and the same from whichever moment they are computed."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citadel_maintenance.beat.slots import Crontab, Interval

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60_000
moments = st.integers(min_value=0, max_value=4_000_000_000_000)
periods = st.integers(min_value=1, max_value=10 * 24 * 3_600_000)


def field(low, high, most):
    """Return a strategy of a crontab's field and its values: single ones up to `high`, others up to `most`."""
    single = st.integers(low, high).map(lambda n: (str(n), {n}))
    every = st.just(("*", set(range(low, most + 1))))
    steps = st.integers(2, high).map(lambda n: (f"*/{n}", set(range(low, most + 1, n))))
    several = st.sets(st.integers(low, high), min_size=2, max_size=4).map(
        lambda values: (",".join(map(str, sorted(values))), values)
    )
    return st.one_of(single, every, steps, several)


@st.composite
def crontabs(draw):
    """Draw a crontab and the values of its fields; days up to the 28th exist in every month."""
    limits = [(0, 59, 59), (0, 23, 23), (1, 28, 31), (1, 12, 12), (0, 6, 6)]
    fields = [draw(field(*limit)) for limit in limits]
    return " ".join(text for text, _ in fields), [values for _, values in fields]


def is_slot(moment, values):
    when = EPOCH + timedelta(milliseconds=moment)
    parts = (when.minute, when.hour, when.day, when.month, when.isoweekday() % 7)
    return moment % MINUTE == 0 and all(part in allowed for part, allowed in zip(parts, values, strict=True))


@given(periods, moments)
def test_slots_of_an_interval_are_multiples_of_its_period(period, moment):
    slots = Interval(period)
    latest = slots.latest(moment)
    assert latest <= moment < slots.following(moment) == latest + period
    assert latest % period == 0


@given(crontabs(), moments)
def test_slots_of_a_crontab_match_its_fields(crontab, moment):
    text, values = crontab
    slots = Crontab(text)
    latest, following = slots.latest(moment), slots.following(moment)
    assert latest <= moment < following
    assert is_slot(latest, values)
    assert is_slot(following, values)
    assert slots.following(latest) == following
    assert slots.latest(following) == following
    assert slots.latest(following - 1) == latest


@given(crontabs(), moments)
def test_a_crontab_skips_no_matching_minute(crontab, moment):
    text, values = crontab
    slots = Crontab(text)
    start = moment // MINUTE * MINUTE
    expected = [start + n * MINUTE for n in range(1, 600) if is_slot(start + n * MINUTE, values)]
    found, at = [], start
    while (at := slots.following(at)) < start + 600 * MINUTE:
        found.append(at)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "moment", "latest"),
    [
        ("0 0 29 2 *", "2026-11-22T00:00", "2024-02-29T00:00"),
        ("0 0 29 2 1", "2026-11-22T00:00", "2016-02-29T00:00"),
        ("30 3 31 * *", "2026-11-22T00:00", "2026-10-31T03:30"),
        ("*/15 9-17 * * mon-fri", "2026-11-22T12:00", "2026-11-20T17:45"),
        ("0   *\t* * *", "2026-11-22T12:59", "2026-11-22T12:00"),
    ],
)
def test_the_latest_slot_of_a_rare_crontab_is_found(text, moment, latest):
    found = Crontab(text).latest(milliseconds(moment))
    assert (EPOCH + timedelta(milliseconds=found)).isoformat()[:16] == latest


def milliseconds(text):
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)


INVALID_CRONTABS = """
*
* * * *
* * * * * *
60 * * * *
* 24 * * *
* * 0 * *
* * * 13 *
* * * * 8
*/0 * * * *
0 0 31 2 *
a b c d e
@hourly
1- * * * *
, * * * *
*/ * * * *
"""


@pytest.mark.parametrize("text", INVALID_CRONTABS.splitlines())
def test_an_invalid_crontab_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a crontab|five fields"):
        Crontab(text)


@given(st.text(alphabet="0123456789*/-,? abcmonfri\x00é", max_size=30))
def test_any_text_is_either_a_crontab_or_refused(text):
    try:
        slots = Crontab(text)
    except ValueError:
        return
    assert slots.following(slots.latest(10**12)) > 10**12


def test_slots_are_described_as_text():
    assert str(Interval(300_000)) == "every 5m"
    assert str(Interval(1500)) == "every 1500ms"
    assert str(Crontab("0  3 * * *")) == "crontab 0 3 * * *"
