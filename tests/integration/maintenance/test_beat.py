"""Several beat candidates on one Redis: whatever happens to them, every slot is published once."""

import signal
from dataclasses import dataclass
from datetime import datetime

import pytest

from citadel_maintenance.beat.schedule import LEADER, ScheduledEntry
from tests.support.beat import (
    TASK,
    BeatProcess,
    Periodic,
    Schedule,
    assert_every_slot_once,
    entry,
    messages,
    open_beats,
    waiting,
)
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
    """Start two candidates, and wait until one leads."""
    beats.start()
    beats.start()
    beats.leader()
    return beats


def assert_complete(beats):
    beats.stop()
    assert_every_slot_once(messages(beats.store), PERIODS)


def other_than(pair, leader):
    return eventually(lambda: next((beat for beat in [pair.leader()] if beat is not leader), None))


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """Messages and states of two candidates that nothing disturbed, during their run and after it."""

    first_leader: BeatProcess
    last_leader: BeatProcess
    gained: int
    named: str
    known: list[ScheduledEntry]
    named_after: str | None
    known_after: list[ScheduledEntry]
    published: list[Periodic]


@pytest.fixture(scope="module")
def undisturbed(redis_server):
    with open_beats(redis_server, *ENTRIES) as pair:
        pair.start()
        pair.start()
        first, schedule = pair.leader(), Schedule(pair.store)
        pair.wait_for_more(50)
        eventually(lambda: all(entry.last_slot for entry in schedule.entries()))
        last, named, known = pair.leader(), schedule.leader(), schedule.entries()
        pair.stop()
        return Undisturbed(
            first_leader=first,
            last_leader=last,
            gained=len(first.events("leader_gained")),
            named=named,
            known=known,
            named_after=schedule.leader(),
            known_after=schedule.entries(),
            published=messages(pair.store),
        )


def test_every_slot_is_published_once(undisturbed):
    assert_every_slot_once(undisturbed.published, PERIODS)


def test_one_candidate_leads_and_the_other_waits(undisturbed):
    assert undisturbed.last_leader is undisturbed.first_leader
    assert undisturbed.gained == 1


def test_a_killed_leader_is_replaced(pair):
    """First by the waiting candidate, then by one that started later."""
    pair.wait_for_more(8)
    pair.end(pair.leader())
    pair.start()
    pair.wait_for_more(8)
    pair.end(pair.leader())
    pair.wait_for_more(8)
    assert_complete(pair)


def test_a_paused_leader_publishes_nothing_after_it_lost_the_lead(pair):
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


def test_a_lone_leader_goes_on_after_a_pause(beats):
    """Its lock has expired, and no other candidate took it."""
    alone = beats.start()
    beats.wait_for_more(5)
    alone.signal(signal.SIGSTOP)
    eventually(lambda: not beats.store.exists(LEADER))
    alone.resume()
    alone.wait_for("leader_gained", times=2)
    beats.wait_for_more(5)
    assert_complete(beats)


def test_a_leader_that_stops_releases_the_lock_at_once(redis_server):
    """Without the release the lock would last an hour."""
    with open_beats(redis_server, *ENTRIES, BEAT__LOCK_TTL="3600") as pair:
        pair.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            leader = pair.leader()
            pair.start()
            leader.signal(number)
            assert leader.wait() == 0
            successor = other_than(pair, leader)
            pair.wait_for_more(5)
        assert successor.terminate() == 0
        assert_every_slot_once(messages(pair.store), PERIODS)


def test_no_slot_is_published_again_when_redis_is_emptied(pair):
    pair.wait_for_more(5)
    before = {message.task_id for message in messages(pair.store)}
    pair.server.flush()
    eventually(lambda: waiting(pair.store) > 20)
    pair.stop()
    after = [message.task_id for message in messages(pair.store)]
    assert len(after) == len(set(after))
    assert not before & set(after)


def test_a_lone_leader_skips_no_slot_when_redis_is_emptied(beats):
    """It remembers the settled slots, and notices the lost lock at the next slot that it cannot settle."""
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


def test_messages_carry_task_arguments_expiry_and_a_unique_id(undisturbed):
    for message in undisturbed.published:
        assert (message.task, message.kwargs) == (TASK, {"texts": []})
        assert message.headers["expires"] > message.headers["citadel_slot"].partition(" ")[2]
    assert len({message.task_id for message in undisturbed.published}) == len(undisturbed.published)


def test_leader_and_entries_can_be_read_during_and_after_the_run(undisturbed):
    leader = undisturbed.first_leader.identity
    assert leader in undisturbed.named
    for known in undisturbed.known:
        assert (known.task, known.when.partition(" ")[0]) == (TASK, "every")
        assert known.next_at > known.last_slot
        assert leader in known.leader
    assert [known.name for known in undisturbed.known] == sorted(PERIODS)
    assert undisturbed.named_after is None
    published = {message.task_id for message in undisturbed.published}
    assert {known.last_task_id for known in undisturbed.known_after} <= published


def test_a_removed_entry_is_forgotten(beats):
    beats.start()
    eventually(lambda: len(Schedule(beats.store).entries()) == 3)
    beats.stop()
    beats.start(BEAT__SCHEDULE__slow__ENABLED="false")
    eventually(lambda: [known.name for known in Schedule(beats.store).entries()] == ["quick", "steady"])


def test_a_worker_runs_the_published_tasks(redis_server, double):
    with (
        open_beats(redis_server, entry("warm", every="500ms", args='{"texts": ["on the hour"]}')) as beats,
        WorkerProcess(redis_server.url, double.url),
    ):
        beats.start()
        eventually(lambda: double.stats()["texts_embedded"])
