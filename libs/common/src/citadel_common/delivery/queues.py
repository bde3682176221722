"""The state of the queues in the broker's Redis: ready, waiting and unacknowledged messages, and their workers.

A query takes a fixed number of commands, however many messages wait. Its commands fit a sync or async pipeline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from citadel_common.delivery.worker_registry import Heartbeat, held_message_keys, inbox_of
from citadel_contracts import Queue

SENT_AT_HEADER = "sent_at"
"""Message header: when Citadel's producer sent the message, in seconds since the epoch by the broker's clock."""
_SEPARATOR = "\x06\x16"
STEPS = (0, 3, 6, 9)
"""Kombu's priority steps, each with a list of its own; 0 is served first."""
LANES = ("interactive", "standard", "batch", "batch")
"""The lanes of the four lists that kombu keeps per queue."""
_COUNT_TIMERS = """
local time = redis.call('TIME')
local now, counts, later = string.format('%d.%06d', time[1], time[2]), {}, 0
for lane, key in ipairs(KEYS) do
  counts[lane] = redis.call('ZCOUNT', key, '-inf', now)
  later = later + redis.call('ZCARD', key) - counts[lane]
end
counts[#KEYS + 1] = later
return counts
"""
"""Returns the number of messages that are due, for each lane, and the number of those whose time has not come."""


def lists_of(queue: str) -> list[str]:
    """Return the Redis lists of a queue, from the highest priority to the lowest."""
    return [f"{queue}{_SEPARATOR}{step}" if step else str(queue) for step in STEPS]


def timers_prefix(queue: Queue) -> str:
    """Return the prefix of the keys of a queue's timers."""
    return f"citadel:timers:{queue.value}:"


def timer_keys(queue: Queue) -> list[str]:
    """Return the sorted sets of messages that wait for their time, from the highest priority to the lowest."""
    return [f"{timers_prefix(queue)}{step}" for step in STEPS]


def by_lane(lengths: Sequence[int]) -> dict[str, int]:
    """Return messages per lane from the lengths of a queue's lists."""
    lanes = dict.fromkeys(LANES, 0)
    for lane, length in zip(LANES, lengths, strict=True):
        lanes[lane] += length
    return lanes


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """One queue at one moment.

    Attributes:
        queue: The queue.
        lanes: Ready messages by lane; those whose time has come belong to them before a worker releases them.
        scheduled: Messages whose time has not come; they are no backlog.
        unacked: Messages that workers hold or have in their inboxes; of dead workers too, until peers reclaim them.
        workers: Last heartbeats of the live workers.
    """

    queue: Queue
    lanes: dict[str, int]
    scheduled: int
    unacked: int
    workers: tuple[Heartbeat, ...]

    @property
    def ready(self) -> int:
        """Return the number of messages that wait to be taken."""
        return sum(self.lanes.values())


class QueueStateQuery:
    """The commands that read the state of every queue, and the reading of their replies.

    Args:
        beats: Heartbeats in the worker registry, those of dead workers included.
        dead_after: Seconds of silence after which a worker counts as gone.
    """

    def __init__(self, beats: Sequence[Heartbeat], *, dead_after: float) -> None:
        self._beats = beats
        self._dead_after = dead_after

    def ask(self, pipe: Any) -> None:
        """Add the commands to a pipeline."""
        pipe.time()
        for queue in Queue:
            for name in lists_of(queue):
                pipe.llen(name)
            pipe.eval(_COUNT_TIMERS, len(STEPS), *timer_keys(queue))
        for beat in self._beats:
            pipe.hlen(held_message_keys(beat.id)["unacked_key"])
            for name in lists_of(beat.queue):
                pipe.llen(inbox_of(beat.id, name))

    def answer(self, replies: Sequence[Any]) -> list[QueueState]:
        """Return the queues' states from the replies to those commands."""
        (seconds, _), *replies = replies
        count = len(STEPS) + 1
        of_workers = replies[count * len(Queue) :]
        places = 1 + len(STEPS)  # the held hash and the inboxes
        held = [sum(of_workers[start : start + places]) for start in range(0, len(of_workers), places)]
        return [
            self._state(queue, replies[index * count : (index + 1) * count], held, now=seconds)
            for index, queue in enumerate(Queue)
        ]

    def _state(self, queue: Queue, replies: Sequence[Any], held: Sequence[int], *, now: float) -> QueueState:
        *lengths, (*due, scheduled) = replies
        mine = [(beat, count) for beat, count in zip(self._beats, held, strict=True) if beat.queue == queue]
        return QueueState(
            queue=queue,
            lanes=by_lane([length + late for length, late in zip(lengths, due, strict=True)]),
            scheduled=scheduled,
            unacked=sum(count for _, count in mine),
            workers=tuple(
                beat for beat, _ in mine if not beat.is_dead(silence=beat.silence(now), dead_after=self._dead_after)
            ),
        )
