"""Records of accepted tasks that nothing else would end.

Results of tasks need no clean-up: each is stored with a time to live, and those of other Celery programs in the same
Redis, which may have none, are not ours to judge. The record of an accepted task ends with the task; this looks for
what an outage or a defect can leave behind:

| what | why it stays | what is done |
|---|---|---|
| a task that has ended | its worker stored the result and could not end the record | the record goes |
| a task that cannot be read | each look at what is due would stumble over it | the record goes |
| a task that is never looked at | its due time was lost | it is looked at now |
| a lease, a due time of no task | the record went without them | they go |

A task that was requeued has its old, failed result for a moment: so one counts as ended only after it was published
again some times, and while nobody holds its lease. Each removal, and each one foretold, looks in the same step
whether that still holds.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.delivery.accepted_tasks import DUE, LEASES, MESSAGES, TaskMessage
from citadel_common.delivery.requeue import RESULT_PREFIX
from citadel_maintenance.scanning import walk
from citadel_maintenance.upkeep import Job

if TYPE_CHECKING:
    from redis import Redis

ENDED = "accepted_ended"
UNREADABLE = "accepted_unreadable"
UNSCHEDULED = "accepted_unscheduled"
LEASE_ALONE = "lease_without_task"
DUE_ALONE = "due_without_task"
ENOUGH_LOOKS = 3
"""Publications after which an accepted task whose result is there counts as ended."""
_FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
_KEYS = (MESSAGES, DUE, LEASES)
_END = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local lease = redis.call('HGET', KEYS[3], ARGV[1])
if lease and tonumber(lease:match(' ([%d.]+)$') or '0') > tonumber(ARGV[3]) then return 0 end
if ARGV[4] == '1' then return 1 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""
_SCHEDULE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
return redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
"""
_DROP_ALONE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
return redis.call('HDEL', KEYS[3], ARGV[1]) + redis.call('ZREM', KEYS[2], ARGV[1])
"""


class ResultCleanup:
    """One run.

    Args:
        job: Pace and counts.
        client: Client of the result store.
        count: Entries looked at per step.
    """

    def __init__(self, job: Job, client: "Redis", *, count: int) -> None:
        self._job = job
        self._client = client
        self._count = count
        self._end: Any = client.register_script(_END)
        self._schedule: Any = client.register_script(_SCHEDULE)
        self._drop_alone: Any = client.register_script(_DROP_ALONE)

    def run(self) -> bool:
        """Looks at tasks, leases and due times; whether that was all."""
        return (
            self._each(MESSAGES, "hash", self._tasks)
            and self._each(LEASES, "hash", lambda ids: self._alone(ids, LEASE_ALONE))
            and self._each(DUE, "zset", lambda ids: self._alone(ids, DUE_ALONE))
        )

    def _each(self, key: str, kind: str, look: Any) -> bool:
        pages = walk(self._client, key, kind, count=self._count)
        while self._job.pace.goes_on():
            with self._job.pace.batch():
                ids = next(pages, None)
                if ids:
                    self._job.tallies.examined += len(ids)
                    look(ids)
            if ids is None:
                return True
        return False

    def _tasks(self, ids: Sequence[str]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for task_id in ids:
            pipe.hget(MESSAGES, task_id)
            pipe.zscore(DUE, task_id)
        answers = pipe.execute()
        for task_id, stored, due in zip(ids, answers[0::2], answers[1::2], strict=True):
            if stored is not None:
                self._task(task_id, stored, due)

    def _task(self, task_id: str, stored: bytes, due: float | None) -> None:
        try:
            envelope = TaskMessage.from_json(task_id, stored)
        except (ValueError, TypeError):
            self._remove(UNREADABLE, task_id, stored)
            return
        if envelope.looks >= ENOUGH_LOOKS and self._has_result(task_id):
            self._remove(ENDED, task_id, stored)
        elif due is None:
            tally = self._job.tallies.of(UNSCHEDULED)
            tally.examined += 1
            tally.repaired += 1 if self._job.dry_run else self._call(self._schedule, task_id, time.time())

    def _has_result(self, task_id: str) -> bool:
        stored: Any = self._client.get(RESULT_PREFIX + task_id)
        try:
            return stored is not None and orjson.loads(stored).get("status") in _FINAL
        except (ValueError, AttributeError):
            return False

    def _remove(self, kind: str, task_id: str, stored: bytes) -> None:
        tally = self._job.tallies.of(kind)
        tally.examined += 1
        removed = int(self._end(keys=_KEYS, args=[task_id, stored, time.time(), int(self._job.dry_run)]))
        tally.removed += removed
        tally.bytes_freed += removed * len(stored)

    def _alone(self, ids: Sequence[str], kind: str) -> None:
        pipe = self._client.pipeline(transaction=False)
        for task_id in ids:
            pipe.hexists(MESSAGES, task_id)
        for task_id, known in zip(ids, pipe.execute(), strict=True):
            if known:
                continue
            tally = self._job.tallies.of(kind)
            tally.examined += 1
            tally.removed += 1 if self._job.dry_run else self._call(self._drop_alone, task_id)

    def _call(self, script: Any, *values: Any) -> int:
        return int(script(keys=_KEYS, args=values))
