"""The history of checks and metrics, in a real Redis."""

from datetime import UTC, datetime, timedelta

import pytest

from citadel_common.history import History, key_of, parse

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def history(store):
    """A history of ten entries and an hour; empty."""
    store.flushall()
    return History(store, max_entries=10, ttl=3600)


def minute(number):
    return NOON + timedelta(minutes=number)


def numbers(entries):
    return [entry["number"] for entry in entries]


def record(history, *minutes, kind="metrics"):
    for number in minutes:
        history.record(kind, minute(number), {"number": number})


def everything(history, kind="metrics"):
    return numbers(history.between(kind, NOON - timedelta(days=1), NOON + timedelta(days=1), 100))


def test_the_newest_first(history):
    record(history, 2, 0, 1)
    assert everything(history) == [2, 1, 0]


def test_an_entry_comes_back_with_its_time(history):
    history.record("health", NOON, {"success": True, "health_status": {"status": "ok", "services": {}}})
    [entry] = history.between("health", NOON, NOON, 1)
    assert entry == {
        "at": "2026-01-31T12:00:00+00:00", "success": True, "health_status": {"status": "ok", "services": {}},
    }  # fmt: skip


def test_from_and_to_are_included_and_the_limit_holds(history):
    record(history, *range(8))
    assert numbers(history.between("metrics", minute(2), minute(5), 100)) == [5, 4, 3, 2]
    assert numbers(history.between("metrics", minute(2), minute(5), 2)) == [5, 4]


def test_kinds_are_apart(history):
    record(history, 1, kind="health")
    record(history, 2)
    assert (everything(history, "health"), everything(history)) == ([1], [2])


def test_the_oldest_go_when_they_are_too_many(history, store):
    record(history, *range(15))
    assert everything(history) == list(range(14, 4, -1))
    assert store.zcard(key_of("metrics")) == 10


def test_they_go_when_they_are_too_old(history):
    record(history, 0, 30, 60, 61)
    assert everything(history) == [61, 60, 30]


def test_a_history_that_nobody_adds_to_goes_as_a_whole(history, store):
    record(history, 0)
    assert 3590 < store.ttl(key_of("metrics")) <= 3600


def test_a_reader_of_its_own_finds_them_by_score(history, store):
    record(history, 0, 1)
    [member] = store.zrange("citadel:history:metrics", minute(1).timestamp(), "+inf", byscore=True)
    assert parse(member) == {"at": minute(1).isoformat(), "number": 1}
