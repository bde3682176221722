"""Several beats on one Redis: whatever becomes of them, every slot is published once."""

import signal
from datetime import datetime

import pytest

from citadel_common.schedule import LEADER, Schedule
from tests.support.beat import TASK, assert_every_slot_once, entry, messages, open_beats
from tests.support.polling import eventually
from tests.support.worker import WorkerProcess

PERIODS = {"quick": 200, "steady": 500, "slow": 1000}
ENTRIES = [entry(name, every=f"{period}ms") for name, period in PERIODS.items()]


@pytest.fixture
def beats(redis_server):
    with open_beats(redis_server, *ENTRIES) as beats:
        yield beats


@pytest.fixture
def pair(beats):
    """Two candidates, one of which leads."""
    beats.start()
    beats.start()
    beats.leader()
    return beats


def assert_complete(beats):
    beats.stop()
    assert_every_slot_once(messages(beats.store), PERIODS)


def other_than(pair, leader):
    return eventually(lambda: next((beat for beat in [pair.leader()] if beat is not leader), None))


def test_every_slot_is_published_once(pair):
    pair.wait_for_more(50)
    assert_complete(pair)


def test_one_leads_the_other_waits(pair):
    leader = pair.leader()
    pair.wait_for_more(20)
    assert leader is pair.leader()
    assert len(leader.events("leader_gained")) == 1


def test_a_killed_leader_is_succeeded(pair):
    for _ in range(2):
        leader = pair.leader()
        pair.wait_for_more(8)
        pair.end(leader)
        pair.start()
        pair.wait_for_more(8)
    assert_complete(pair)


def test_a_paused_leader_publishes_nothing_when_it_wakes_up(pair):
    for _ in range(2):
        leader = pair.leader()
        pair.wait_for_more(8)
        leader.signal(signal.SIGSTOP)
        other_than(pair, leader)
        pair.wait_for_more(8)
        lost = len(leader.events("leader_lost"))
        leader.resume()
        leader.wait_for("leader_lost", times=lost + 1)
        pair.wait_for_more(8)
    assert_complete(pair)


def test_a_leader_paused_alone_goes_on(beats):
    """Its lock has expired, and nobody took it."""
    alone = beats.start()
    beats.wait_for_more(5)
    alone.signal(signal.SIGSTOP)
    eventually(lambda: not beats.store.exists(LEADER))
    alone.resume()
    alone.wait_for("leader_gained", times=2)
    beats.wait_for_more(5)
    assert_complete(beats)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_leader_that_is_told_to_stop_hands_over_at_once(redis_server, number):
    """The lock would hold for an hour."""
    with open_beats(redis_server, *ENTRIES, BEAT__LOCK_TTL="3600") as pair:
        pair.start()
        leader = pair.leader()
        pair.start()
        leader.signal(number)
        assert leader.wait() == 0
        successor = other_than(pair, leader)
        pair.wait_for_more(5)
        assert successor.terminate() == 0
        assert_every_slot_once(messages(pair.store), PERIODS)


def test_an_emptied_redis_is_used_again(pair):
    """What was published is gone with it; what comes then is no repetition of that."""
    pair.wait_for_more(5)
    before = {message.task_id for message in messages(pair.store)}
    pair.server.flush()
    eventually(lambda: len(messages(pair.store)) > 20)
    pair.stop()
    after = [message.task_id for message in messages(pair.store)]
    assert len(after) == len(set(after))
    assert not before & set(after)


def test_a_lone_leader_leaves_nothing_out_when_redis_is_emptied(beats):
    """It knows itself what it has published; that its lock is gone, it learns from a slot that it cannot settle."""
    alone = beats.start(BEAT__LOCK_TTL="600")
    for _ in range(3):
        beats.wait_for_more(5)
        beats.server.flush()
    alone.wait_for("leader_gained", times=4)
    beats.stop()
    for name, period in PERIODS.items():
        slots = [event["slot"] for event in alone.events("slot_published") if event["entry"] == name]
        moments = [round(datetime.fromisoformat(slot).timestamp() * 1000) for slot in slots]
        assert moments == list(range(moments[0], moments[-1] + 1, period))


def test_messages_are_complete(beats):
    beats.start()
    beats.wait_for_more(10)
    beats.stop()
    for message in messages(beats.store):
        assert (message.task, message.kwargs) == (TASK, {"texts": []})
        assert message.headers["expires"] > message.headers["citadel_slot"].partition(" ")[2]
    assert len({message.task_id for message in messages(beats.store)}) == len(messages(beats.store))


def test_the_state_can_be_read(beats):
    leader = beats.start()
    schedule = Schedule(beats.store)
    beats.wait_for_more(10)
    eventually(lambda: all(entry.last_slot for entry in schedule.entries()))
    assert leader.identity in schedule.leader()
    for known in schedule.entries():
        assert (known.task, known.when.partition(" ")[0]) == (TASK, "every")
        assert known.next_at > known.last_slot
        assert leader.identity in known.leader
    assert [known.name for known in schedule.entries()] == sorted(PERIODS)
    beats.stop()
    assert schedule.leader() is None
    last = {message.task_id for message in messages(beats.store)}
    assert {known.last_task_id for known in schedule.entries()} <= last


def test_an_entry_that_is_gone_is_forgotten(beats):
    beats.start()
    eventually(lambda: len(Schedule(beats.store).entries()) == 3)
    beats.stop()
    beats.start(BEAT__SCHEDULE__slow__ENABLED="false")
    eventually(lambda: [known.name for known in Schedule(beats.store).entries()] == ["quick", "steady"])


def test_a_worker_runs_what_is_published(redis_server, double):
    """The messages are those of Celery."""
    with (
        open_beats(redis_server, entry("warm", every="500ms", args='{"texts": ["on the hour"]}')) as beats,
        WorkerProcess(redis_server.url, double.url),
    ):
        beats.start()
        eventually(lambda: double.stats()["texts_embedded"])
