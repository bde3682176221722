"""The history of checks and metrics in a real Redis."""

from datetime import UTC, datetime, timedelta

import pytest

from citadel_common.history import History, key_of, parse

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def history(store):
    """Return an empty history of at most ten entries and an hour."""
    store.flushall()
    return History(store, max_entries=10, ttl=3600)


def minute(number):
    return NOON + timedelta(minutes=number)


def numbers(entries):
    return [entry["number"] for entry in entries]


def record(history, *minutes, kind="metrics"):
    for number in minutes:
        history.record(kind, {"number": number}, at=minute(number))


def everything(history, kind="metrics"):
    return numbers(history.between(kind, NOON - timedelta(days=1), NOON + timedelta(days=1), 100))


def test_entries_come_newest_first(history):
    record(history, 2, 0, 1)
    assert everything(history) == [2, 1, 0]


def test_an_entry_comes_back_with_its_time(history):
    history.record("health", {"success": True, "health_status": {"status": "ok", "services": {}}}, at=NOON)
    [entry] = history.between("health", NOON, NOON, 1)
    assert entry == {
        "at": "2026-01-31T12:00:00+00:00", "success": True, "health_status": {"status": "ok", "services": {}},
    }  # fmt: skip


def test_both_ends_of_the_range_are_included_and_the_limit_holds(history):
    record(history, *range(8))
    assert numbers(history.between("metrics", minute(2), minute(5), 100)) == [5, 4, 3, 2]
    assert numbers(history.between("metrics", minute(2), minute(5), 2)) == [5, 4]


def test_kinds_are_separate(history):
    record(history, 1, kind="health")
    record(history, 2)
    assert (everything(history, "health"), everything(history)) == ([1], [2])


def test_the_oldest_entries_beyond_the_maximum_are_removed(history, store):
    record(history, *range(15))
    assert everything(history) == list(range(14, 4, -1))
    assert store.zcard(key_of("metrics")) == 10


def test_entries_older_than_the_ttl_are_removed(history):
    record(history, 0, 30, 60, 61)
    assert everything(history) == [61, 60, 30]


def test_a_history_without_new_entries_expires(history, store):
    record(history, 0)
    assert 3590 < store.ttl(key_of("metrics")) <= 3600


def test_entries_can_be_read_by_their_score(history, store):
    record(history, 0, 1)
    [member] = store.zrange("citadel:history:metrics", minute(1).timestamp(), "+inf", byscore=True)
    assert parse(member) == {"at": minute(1).isoformat(), "number": 1}
