"""Removal of records of accepted tasks that nothing else would remove.

Results need no clean-up: each is stored with a time to live. Results of other Celery programs in the same Redis may
have none, and are left alone. The record of an accepted task is removed when the task ends. This clean-up handles
what an outage or a defect can leave behind:

| finding | cause | action |
|---|---|---|
| a task that has ended | its worker stored the result and could not remove the record | remove the record |
| a task that cannot be read | every sweep of due tasks would fail on it | remove the record |
| a task without a due time | the due time was lost | make it due now |
| a lease or a due time without a task | the record was removed without them | remove them |

A task that has just been requeued still has its old, failed result. So a task counts as ended only after it was
published again `ENOUGH_LOOKS` times, and while nobody holds its lease. The scripts check that again in the step that
removes, in dry runs too.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.delivery.accepted_tasks import DUE, LEASES, MESSAGES, TaskMessage
from citadel_common.delivery.requeue import RESULT_PREFIX
from citadel_maintenance.jobs.runner import Job
from citadel_maintenance.scanning import scan_key

if TYPE_CHECKING:
    from redis import Redis

ENDED = "accepted_ended"
UNREADABLE = "accepted_unreadable"
UNSCHEDULED = "accepted_unscheduled"
LEASE_WITHOUT_TASK = "lease_without_task"
DUE_WITHOUT_TASK = "due_without_task"
ENOUGH_LOOKS = 3
"""Publications after which an accepted task that has a result counts as ended."""
_FINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
_KEYS = (MESSAGES, DUE, LEASES)
# Compares the stored message first: a task that was requeued or claimed since it was read stays. ARGV[3] is 1 in a
# dry run. A lease is judged by the clock of the server, as it was made.
_REMOVE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local lease = redis.call('HGET', KEYS[3], ARGV[1])
local now = redis.call('TIME')
if lease and tonumber(lease:match(' ([%d.]+)$') or '0') > tonumber(now[1]) then return 0 end
if ARGV[3] == '1' then return 1 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
"""
# NX: a due time that was set since the task was read is the better one.
_SCHEDULE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
return redis.call('ZADD', KEYS[2], 'NX', redis.call('TIME')[1], ARGV[1])
"""
_REMOVE_LEFTOVERS = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
return redis.call('HDEL', KEYS[3], ARGV[1]) + redis.call('ZREM', KEYS[2], ARGV[1])
"""


class AcceptedTaskCleanup:
    """One run of `citadel.purge_results`.

    Args:
        job: The run.
        client: Client of the result store.
        count: Entries examined per batch.
    """

    def __init__(self, job: Job, client: "Redis", *, count: int) -> None:
        self._job = job
        self._client = client
        self._count = count
        self._remove_script: Any = client.register_script(_REMOVE)
        self._schedule: Any = client.register_script(_SCHEDULE)
        self._remove_leftovers: Any = client.register_script(_REMOVE_LEFTOVERS)

    def run(self) -> bool:
        """Examine tasks, leases and due times; return whether that was all."""
        return (
            self._each(MESSAGES, "hash", self._check_tasks)
            and self._each(LEASES, "hash", lambda ids: self._check_leftovers(ids, LEASE_WITHOUT_TASK))
            and self._each(DUE, "zset", lambda ids: self._check_leftovers(ids, DUE_WITHOUT_TASK))
        )

    def _each(self, key: str, kind: str, check: Callable[[Sequence[str]], None]) -> bool:
        pages = scan_key(self._client, key, kind, count=self._count)
        for _ in self._job.throttle.batches():
            ids = next(pages, None)
            if ids is None:
                return True
            if ids:
                self._job.counters.examined += len(ids)
                check(ids)
        return False

    def _check_tasks(self, ids: Sequence[str]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for task_id in ids:
            pipe.hget(MESSAGES, task_id)
            pipe.zscore(DUE, task_id)
        answers = pipe.execute()
        for task_id, stored, due in zip(ids, answers[0::2], answers[1::2], strict=True):
            if stored is not None:
                self._check_task(task_id, stored, due)

    def _check_task(self, task_id: str, stored: bytes, due: float | None) -> None:
        try:
            message = TaskMessage.from_json(task_id, stored)
        except (ValueError, TypeError):
            self._remove(UNREADABLE, task_id, stored)
            return
        if message.looks >= ENOUGH_LOOKS and self._has_result(task_id):
            self._remove(ENDED, task_id, stored)
        elif due is None:
            repaired = 1 if self._job.dry_run else self._call(self._schedule, task_id)
            self._job.counters.add(UNSCHEDULED, repaired=repaired)

    def _has_result(self, task_id: str) -> bool:
        stored: Any = self._client.get(RESULT_PREFIX + task_id)
        try:
            return stored is not None and orjson.loads(stored).get("status") in _FINAL
        except (ValueError, AttributeError):
            return False

    def _remove(self, kind: str, task_id: str, stored: bytes) -> None:
        removed = self._call(self._remove_script, task_id, stored, int(self._job.dry_run))
        self._job.counters.add(kind, removed=removed, bytes_freed=removed * len(stored))

    def _check_leftovers(self, ids: Sequence[str], kind: str) -> None:
        pipe = self._client.pipeline(transaction=False)
        for task_id in ids:
            pipe.hexists(MESSAGES, task_id)
        for task_id, has_task in zip(ids, pipe.execute(), strict=True):
            if not has_task:
                removed = 1 if self._job.dry_run else self._call(self._remove_leftovers, task_id)
                self._job.counters.add(kind, removed=removed)

    def _call(self, script: Any, *values: Any) -> int:
        return int(script(keys=_KEYS, args=values))
