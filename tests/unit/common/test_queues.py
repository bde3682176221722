"""What the broker's answers mean for queues: lanes, unacked messages, live workers."""

import os

from citadel_common.delivery.queues import QueueStateQuery, by_lane, lists_of, timer_keys
from citadel_common.delivery.worker_registry import Heartbeat
from citadel_contracts import Queue

BROKER_TIME = 5_000_000
"""Nowhere near this host's."""


class Pipeline:
    """Answers each command from a table of sizes, as Redis does for keys that are not there: 0.

    A script that counts timers gets the number that is due and the number of the others.
    """

    def __init__(self, sizes):
        self.sizes = sizes
        self.replies = []

    def size(self, key):
        self.replies.append(self.sizes.get(key, 0))

    llen = hlen = size

    def eval(self, _script, _count, *keys):
        timers = [self.sizes.get(key, (0, 0)) for key in keys]
        self.replies.append([*(due for due, _ in timers), sum(later for _, later in timers)])

    def time(self):
        self.replies.append((BROKER_TIME, 0))


def beat(name, queue, *, silent=0.0, stopped=False):
    return Heartbeat(
        id=name,
        queue=queue,
        host="h",
        pid=os.getpid(),
        machine="",
        born="",
        concurrency=4,
        running=1,
        processed=0,
        failed=0,
        started_at=0.0,
        seen_at=BROKER_TIME - silent,
        stopped=stopped,
    )


def states(beats, sizes):
    reading, pipe = QueueStateQuery(beats, dead_after=30), Pipeline(sizes)
    reading.ask(pipe)
    return {state.queue: state for state in reading.answer(pipe.replies)}


def test_priorities_six_and_nine_count_as_the_batch_lane():
    assert by_lane([1, 2, 3, 4]) == {"interactive": 1, "standard": 2, "batch": 7}


def test_messages_are_counted_per_queue():
    sizes = dict(zip(lists_of(Queue.MONITORING), (5, 1, 0, 2), strict=True))
    found = states([], sizes)
    assert found[Queue.MONITORING].lanes == {"interactive": 5, "standard": 1, "batch": 2}
    assert found[Queue.MONITORING].ready == 8
    assert [found[queue].ready for queue in Queue if queue is not Queue.MONITORING] == [0, 0, 0]


def test_messages_count_as_ready_from_their_time_on_and_as_scheduled_before():
    waiting = dict(zip(timer_keys(Queue.MONITORING), ((1, 100), (0, 20), (2, 0), (3, 3)), strict=True))
    found = states([], waiting | {lists_of(Queue.MONITORING)[0]: 4})
    assert found[Queue.MONITORING].lanes == {"interactive": 5, "standard": 0, "batch": 5}
    assert (found[Queue.MONITORING].ready, found[Queue.MONITORING].scheduled) == (10, 123)
    assert found[Queue.EMBEDDINGS].scheduled == 0


def test_a_dead_worker_serves_nothing_and_still_holds_messages():
    beats = [
        beat("live", "embeddings"),
        beat("silent", "embeddings", silent=60),
        beat("gone", "embeddings", stopped=True),
        beat("other", "maintenance"),
    ]
    held = {f"citadel:unacked:{name}": count for name, count in (("live", 2), ("silent", 2), ("gone", 1))}
    held["citadel:unacked:live:inbox:embeddings"] = 1
    found = states(beats, held)
    assert [worker.id for worker in found[Queue.EMBEDDINGS].workers] == ["live"]
    assert found[Queue.EMBEDDINGS].unacked == 6
    assert [worker.id for worker in found[Queue.MAINTENANCE].workers] == ["other"]
    assert found[Queue.MAINTENANCE].unacked == 0
