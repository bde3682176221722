"""Mending of a queue's timers whose keys no longer fit together.

The workers change all keys of the timers in one script. An operator, or a Redis that evicts keys, may remove one of
them:

| finding | action |
|---|---|
| a message without a due time | make it due now; the worker that takes it reads its ETA and lets it wait again |
| a due time without a message | remove it |
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from citadel_common.delivery.entries import held_suffix, step_of
from citadel_common.delivery.queues import STEPS, timer_keys
from citadel_common.delivery.timers import messages_key
from citadel_contracts import Queue
from citadel_maintenance.jobs.runner import Job
from citadel_maintenance.scanning import scan_key

if TYPE_CHECKING:
    from redis import Redis

WITHOUT_TIME = "timers_without_time"
WITHOUT_MESSAGE = "timers_without_message"
# Each script checks in the same step that the entry is still as it was read. ARGV[2] is 1 in a dry run.
_MAKE_DUE = """
local messages, lane = KEYS[1], KEYS[tonumber(ARGV[3]) + 1]
if redis.call('HEXISTS', messages, ARGV[1]) == 0 then return 0 end
for i = 2, #KEYS do
  if redis.call('ZSCORE', KEYS[i], ARGV[1]) then return 0 end
end
if ARGV[2] == '0' then redis.call('ZADD', lane, redis.call('TIME')[1], ARGV[1]) end
return 1
"""
_REMOVE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
if ARGV[2] == '1' then return 1 end
local removed = 0
for i = 2, #KEYS do removed = removed + redis.call('ZREM', KEYS[i], ARGV[1]) end
return removed
"""


class TimerCleanup:
    """The part of `citadel.purge_orphans` that examines timers.

    Args:
        job: The run of the task.
        client: Client of the broker's Redis.
        count: Entries examined per batch.
    """

    def __init__(self, job: Job, client: "Redis", *, count: int) -> None:
        self._job = job
        self._client = client
        self._count = count
        self._make_due: Any = client.register_script(_MAKE_DUE)
        self._remove: Any = client.register_script(_REMOVE)

    def run(self) -> bool:
        """Examine the timers of every queue; return whether that was all."""
        return all(self._examine(queue) for queue in Queue)

    def _examine(self, queue: Queue) -> bool:
        return self._each(messages_key(queue), "hash", lambda names: self._check_messages(queue, names)) and all(
            self._each(key, "zset", lambda names: self._check_times(queue, names)) for key in timer_keys(queue)
        )

    def _each(self, key: str, kind: str, check: Callable[[Sequence[str]], None]) -> bool:
        pages = scan_key(self._client, key, kind, count=self._count)
        for _ in self._job.throttle.batches():
            names = next(pages, None)
            if names is None:
                return True
            if names:
                self._job.counters.examined += len(names)
                check(names)
        return False

    def _check_messages(self, queue: Queue, names: Sequence[str]) -> None:
        times = timer_keys(queue)
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            for key in times:
                pipe.zscore(key, name)
        scores = pipe.execute()
        for position, name in enumerate(names):
            if not any(score is not None for score in scores[position * len(times) : (position + 1) * len(times)]):
                self._job.counters.add(
                    WITHOUT_TIME, repaired=self._call(self._make_due, queue, name, self._lane(queue, name))
                )

    def _check_times(self, queue: Queue, names: Sequence[str]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hexists(messages_key(queue), name)
        for name, has_message in zip(names, pipe.execute(), strict=True):
            if not has_message:
                self._job.counters.add(WITHOUT_MESSAGE, removed=self._call(self._remove, queue, name))

    def _lane(self, queue: Queue, name: str) -> int:
        """Return the number of the lane of a message, from its priority."""
        stored: Any = self._client.hget(messages_key(queue), name)
        held = b"[%b%b" % (stored or b"", held_suffix(queue.value).encode())
        return STEPS.index(step_of("", held)) + 1

    def _call(self, script: Any, queue: Queue, name: str, *args: Any) -> int:
        keys = [messages_key(queue), *timer_keys(queue)]
        return int(script(keys=keys, args=[name, int(self._job.dry_run), *args]))
