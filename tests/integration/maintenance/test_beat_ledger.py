"""The leader's lock and the ledger on a real Redis: a candidate with an outdated view changes nothing."""

import pytest

from citadel_maintenance.beat.ledger import Ledger, Message
from citadel_maintenance.beat.lock import LeaderLock
from citadel_maintenance.beat.schedule import LEADER, SLOTS, ScheduledEntry
from tests.support.beat import Schedule

MESSAGE = Message(list_name="somewhere", text="a message")
STATE = ScheduledEntry(name="warm", task="t", when="every 5m", next_at=2.0, leader="first")


@pytest.fixture
def store(redis_server):
    redis_server.flush()
    with redis_server.client() as client:
        yield client


@pytest.fixture
def locks(store):
    return [LeaderLock(store, name, ttl=60) for name in ("first", "second")]


@pytest.fixture
def ledgers(store):
    return [Ledger(store, name) for name in ("first", "second")]


def test_one_candidate_at_a_time_holds_the_lock(locks, store):
    first, second = locks
    assert first.take()
    assert not second.take()
    assert first.keep()
    assert 0 < store.pttl(LEADER) <= 60_000
    first.release()
    assert second.take()
    assert not first.is_held


def test_a_lock_that_another_candidate_took_is_neither_renewed_nor_released(store):
    first = LeaderLock(store, "first", ttl=0.001)
    assert first.take()
    store.set(LEADER, "second")
    assert not first.keep()
    assert not first.is_held
    first.release()
    assert store.get(LEADER) == b"second"


def test_a_slot_is_published_once(locks, ledgers, store):
    first, second = ledgers
    assert locks[0].take()
    assert first.settle(STATE, 1000, MESSAGE) == "done"
    assert first.settle(STATE, 1000, MESSAGE) == "settled"
    assert first.settle(STATE, 999, MESSAGE) == "settled"
    locks[0].release()
    locks[1].take()
    assert second.settle(STATE, 1000, MESSAGE) == "settled"
    assert second.settle(STATE, 1001, MESSAGE) == "done"
    assert store.lrange(MESSAGE.list_name, 0, -1) == [b"a message"] * 2


@pytest.mark.parametrize("holder", ["second", None])
def test_a_candidate_that_does_not_lead_publishes_nothing(ledgers, store, holder):
    if holder:
        store.set(LEADER, holder)
    assert ledgers[0].settle(STATE, 1000, MESSAGE) == "not_leader"
    ledgers[0].rewind(STATE.name, 5)
    assert not store.exists(MESSAGE.list_name, SLOTS)


def test_a_slot_whose_publication_failed_can_be_settled_again(locks, ledgers, store):
    locks[0].take()
    store.set(MESSAGE.list_name, "no list")
    with pytest.raises(Exception, match="WRONGTYPE"):
        ledgers[0].settle(STATE, 1000, MESSAGE)
    store.delete(MESSAGE.list_name)
    assert ledgers[0].settle(STATE, 1000, MESSAGE) == "done"
    assert store.llen(MESSAGE.list_name) == 1


def test_a_known_entry_keeps_its_settled_slot(ledgers):
    ledgers[0].introduce([STATE], {"warm": 7}, [])
    ledgers[1].introduce([STATE], {"warm": 9, "other": 3}, ["other"])
    assert ledgers[0].slots() == {"warm": 7}
    assert ledgers[0].states() == {"warm": STATE}


def test_unreadable_states_are_ignored(ledgers, store):
    store.hset("citadel:beat", mapping={"warm": "{", "other": '{"name": "other"}', "list": "[1]"})
    assert ledgers[0].states() == {"warm": None, "other": None, "list": None}
    assert Schedule(store).entries() == []
