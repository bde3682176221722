"""What a worker's scripts do to the lanes, on a real Redis: priority, bounds, and no message between two places."""

import orjson
import pytest
import redis

from citadel_common.delivery.dead_letters import HISTORY_HEADER
from citadel_common.delivery.queues import lists_of
from citadel_common.delivery.redelivery import Reclaimer
from citadel_common.delivery.worker_messages import WorkerMessages
from citadel_common.delivery.worker_registry import WORKERS, WorkerIdentity, WorkerRegistry, held_message_keys
from citadel_common.telemetry import NULL_METRICS
from citadel_contracts import Queue

QUEUE = Queue.EMBEDDINGS.value
LANES = lists_of(QUEUE)
STATE = {"concurrency": 1, "running": 0, "processed": 0, "failed": 0, "started_at": 0.0}
ROOM = {"room": 10, "batch_room": 10, "peers": 1}


@pytest.fixture
def store(redis_server):
    redis_server.flush()
    with redis_server.client() as client:
        yield client
        client.config_set("maxmemory", 0)
        client.flushall()


@pytest.fixture
def identity(store):
    """A worker that is registered."""
    identity = WorkerIdentity.of_this_process(QUEUE)
    WorkerRegistry(store).beat(identity, **STATE)
    return identity


@pytest.fixture
def messages(store, identity):
    return WorkerMessages(store, identity.id, QUEUE)


def entry(text, *, priority=0):
    info = {"exchange": "", "routing_key": QUEUE}
    properties = {"delivery_tag": text, "delivery_info": info, "priority": priority}
    return orjson.dumps({"body": "", "headers": {"id": text}, "properties": properties})


def push(store, lane, *entries):
    store.lpush(LANES[lane], *entries)


def texts(entries):
    return [orjson.loads(found)["headers"]["id"] for found in entries]


def taken(messages, **limits):
    return texts(found for _, found in messages.take(**(ROOM | limits)).messages)


def in_lane(store, lane):
    """Return what is in a lane, the next one first."""
    return store.lrange(LANES[lane], 0, -1)[::-1]


def test_higher_lanes_come_first_and_within_a_lane_the_oldest(store, messages):
    for lane in (3, 0, 2, 1):
        push(store, lane, entry(f"{lane} first"), entry(f"{lane} second"))
    assert taken(messages, room=7) == [f"{lane} {n}" for lane in range(4) for n in ("first", "second")][:7]
    assert texts(in_lane(store, 3)) == ["3 second"]
    assert len(messages.tags()) == 7


def test_the_batch_lane_has_a_bound_of_its_own_and_takes_no_place_of_others(store, messages):
    push(store, 2, *[entry(f"b{n}") for n in range(4)])
    push(store, 3, entry("b9"))
    assert taken(messages, room=9, batch_room=2) == ["b0", "b1"]
    push(store, 1, entry("s"))
    assert taken(messages, batch_room=0) == ["s"]


def test_one_of_several_workers_takes_a_share(store, messages):
    push(store, 0, *[entry(str(n)) for n in range(9)])
    assert taken(messages, peers=3) == ["0", "1", "2"]
    assert taken(messages, peers=30) == ["3"]


def test_large_messages_bound_what_is_taken_at_once_and_are_taken_alone(store, messages):
    push(store, 0, entry("x" * 3000), entry("y" * 3000), entry("z"))
    assert taken(messages, most_bytes=100) == ["x" * 3000]
    assert taken(messages, most_bytes=100) == ["y" * 3000]
    assert taken(messages, most_bytes=100) == ["z"]


def test_a_worker_that_its_peers_do_not_know_takes_nothing(store, identity, messages):
    store.hdel(WORKERS, identity.id)
    push(store, 0, entry("a"))
    assert not messages.take(**ROOM).is_registered
    assert texts(in_lane(store, 0)) == ["a"]


def test_acknowledged_messages_are_removed_by_the_next_taking(store, messages):
    push(store, 0, entry("a"), entry("b"))
    done = [tag for tag, _ in messages.take(**(ROOM | {"room": 1})).messages]
    assert taken(messages, acknowledged=done) == ["b"]
    assert len(messages.tags()) == 1


def test_a_full_redis_still_hands_messages_out(store, messages):
    """They are the memory that has to become free."""
    push(store, 0, entry("a"), entry("b"))
    store.config_set("maxmemory", 1)
    assert taken(messages) == ["a", "b"]
    assert messages.give_back(messages.tags(), redelivered=True) == 2
    assert len(in_lane(store, 0)) == 2


def test_a_message_that_cannot_be_held_stays_in_its_lane(store, identity, messages):
    push(store, 0, entry("a"), entry("b"))
    store.set(held_message_keys(identity.id)["unacked_key"], "of another type")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        messages.take(**ROOM)
    assert texts(in_lane(store, 0)) == ["a", "b"]


def test_a_key_of_a_wrong_type_stops_its_lane_alone_and_is_named(store, messages):
    store.set(LANES[0], "of another type")
    push(store, 1, entry("a"))
    taking = messages.take(**ROOM)
    assert texts(found for _, found in taking.messages) == ["a"]
    assert taking.wrong_keys == (LANES[0],)


def test_a_message_is_not_given_back_to_a_key_of_a_wrong_type(store, messages):
    push(store, 1, entry("a"))
    assert taken(messages) == ["a"]
    store.set(LANES[1], "of another type")
    assert messages.give_back(messages.tags(), redelivered=True) == 0
    store.delete(LANES[1])
    assert messages.give_back(messages.tags(), redelivered=True) == 1


def test_scripts_are_loaded_again_when_redis_has_lost_them(store, messages):
    push(store, 0, entry("a"), entry("b"))
    assert taken(messages, room=1) == ["a"]
    store.script_flush()
    assert taken(messages, room=1) == ["b"]
    store.script_flush()
    assert messages.give_back(messages.tags(), redelivered=True) == 2


def test_a_replica_hands_nothing_out(store, messages):
    push(store, 0, entry("a"))
    store.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(redis.RedisError, match="READONLY"):
            messages.take(**ROOM)
    finally:
        store.replicaof("NO", "ONE")
    assert texts(in_lane(store, 0)) == ["a"]


def test_what_arrived_while_the_worker_waited_comes_before_its_lane_and_after_higher_ones(store, messages):
    store.lpush(messages.lanes[1].inbox, entry("moved"))
    push(store, 1, entry("waits"))
    push(store, 0, entry("urgent"))
    assert taken(messages, room=2) == ["urgent", "moved"]


def test_what_there_is_no_room_for_goes_back_to_where_it_was(store, messages):
    push(store, 2, entry("third"))
    store.lpush(messages.lanes[2].inbox, entry("first"), entry("second"))
    assert taken(messages, room=5, batch_room=0) == []
    assert texts(in_lane(store, 2)) == ["first", "second", "third"]
    assert not store.exists(messages.lanes[2].inbox)


def test_given_back_messages_come_first_and_rejected_ones_last(store, messages):
    push(store, 0, entry("a"), entry("b"))
    first = [tag for tag, _ in messages.take(**(ROOM | {"room": 1})).messages]
    messages.give_back(first, redelivered=False)
    assert in_lane(store, 0)[0] == entry("a"), "as it was"
    first = [tag for tag, _ in messages.take(**(ROOM | {"room": 1})).messages]
    messages.give_back(first, redelivered=True, last=True)
    [_, last] = in_lane(store, 0)
    assert orjson.loads(last)["properties"]["delivery_info"]["redelivered"] is True
    assert texts([last]) == ["a"]


@pytest.fixture
def reclaimer(store):
    return Reclaimer(store, NULL_METRICS, dead_after=60)


def test_a_dead_workers_messages_come_back_whatever_they_are(store, identity, messages, reclaimer):
    """Those that it had begun, those in its inboxes, those in the form of older workers, and what is no message."""
    push(store, 0, entry("begun"), b"\xff, no message")
    messages.take(**ROOM)
    store.lpush(messages.lanes[1].inbox, entry("moved"))
    older = [orjson.loads(entry("older", priority=6)), QUEUE, QUEUE]
    store.hset(held_message_keys(identity.id)["unacked_key"], "a tag of its publisher", orjson.dumps(older))
    WorkerRegistry(store).beat(identity, **STATE, stopped=True)
    assert reclaimer.reclaim(own_id="other") == 4
    assert [found for found in in_lane(store, 0) if b"begun" not in found] == [b"\xff, no message"]
    [begun] = [orjson.loads(found) for found in in_lane(store, 0) if b"begun" in found]
    [death] = begun["headers"][HISTORY_HEADER]
    assert (death["code"], death["worker"], begun["headers"]["redelivered"]) == ("worker_lost", identity.id, True)
    assert (in_lane(store, 1), texts(in_lane(store, 2))) == ([entry("moved")], ["older"])
    assert messages.tags() == []


def test_a_dead_worker_is_known_until_its_blocked_commands_have_ended(store, identity, messages, reclaimer):
    WorkerRegistry(store).beat(identity, **STATE, stopped=True)
    reclaimer.reclaim(own_id="other")
    store.lpush(messages.lanes[0].inbox, entry("moved after its death"))
    assert reclaimer.reclaim(own_id="other") == 1
    assert store.hexists(WORKERS, identity.id)


def test_a_worker_that_has_beaten_again_keeps_its_messages(store, identity, messages):
    push(store, 0, entry("a"))
    messages.take(**ROOM)
    store.lpush(messages.lanes[1].inbox, entry("b"))
    judged = store.hget(WORKERS, identity.id)
    WorkerRegistry(store).beat(identity, **(STATE | {"processed": 1}))
    assert messages.give_back(messages.tags(), redelivered=True, judged_by=judged) == 0
    assert messages.empty_inboxes(judged_by=judged) == 0
    assert not messages.forget(judged_by=judged)
    assert len(messages.tags()) == 1
