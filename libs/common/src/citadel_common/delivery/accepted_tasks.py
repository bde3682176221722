"""Accepted tasks: those that the API answered with 202 and whose result is not stored yet.

A message can be lost: Redis loses data, or the API dies before it publishes. So each accepted task is stored with all
that is needed to publish it again, and a lease says who runs it. `RepublishLoop` publishes what is known not to be in
the broker (`tracked_messages`). Publishing again can make duplicates all the same; they are dropped at their start,
because `claim` grants a task to one worker at a time, and to none once the task has finished.

Redis holds a hash of messages, a sorted set of the times at which each is looked at next, a hash of leases, and for
each traced task a key with its trace context. All times are the server's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import orjson

from citadel_common.settings.common import AcceptedSettings
from citadel_common.telemetry import tracing
from citadel_common.telemetry.tracing import Carrier

if TYPE_CHECKING:
    from celery import Celery
    from redis import Redis

MESSAGES = "citadel:accepted"
DUE = "citadel:accepted:due"
LEASES = "citadel:accepted:leases"
TRACE_PREFIX = "citadel:accepted:trace:"
"""Prefix of the keys with a task's trace context. It is not in the message, whose fields older workers check."""
TRACE_KEPT = 24 * 3600
"""Seconds that a task's trace context is kept; a task that ends later is not part of its trace."""
HEADER = "citadel_accepted"
MOST_DOUBLINGS = 30
WAITS = 4
"""First looks that pass until a task whose message is in the broker is looked at again."""
HASTENED = 1000
"""Tasks made due by one command, in about two milliseconds."""
EPOCH = "citadel:accepted:epoch"
"""The broker's epoch whose tasks have all been made due."""

ClaimResult = Literal["run", "busy", "finished", "foreign"]
"""Answer to a claim: run the task, a worker runs it, it has ended, or the id is that of a task of another name."""
State = Literal["known", "ended", "lost"]
"""State of an accepted task: stored here, ended with a stored result, or lost because Redis was emptied."""

RESULT_PREFIX = "celery-task-meta-"
"""Celery's prefix of result keys."""
RESULT_HEAD = 48
"""Bytes at the head of a result that hold its state; the vectors behind them need not be read."""
_FINAL = frozenset({b"SUCCESS", b"FAILURE", b"REVOKED"})
_STATE = re.compile(rb'\{"status": ?"([A-Z]+)"')

_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""
"""Begins each script: the workers' clocks may differ by more than a lease lasts."""
_ADD = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
if ARGV[4] ~= '' then redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5]) end
"""

_CLAIM = """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  if stored:sub(1, #ARGV[5]) ~= ARGV[5] then return 'foreign' end
else
  local state = redis.call('GETRANGE', KEYS[4], 0, ARGV[6]):match('^{"status": ?"(%u+)"')
  if state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED' then return 'finished' end
end
local lease = redis.call('HGET', KEYS[3], ARGV[1])
if lease and ARGV[3] == '0' then
  local expiry = lease:match(' ([%d.]+)$')
  if tonumber(expiry) > now then return 'busy' end
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2] .. ' ' .. string.format('%.3f', now + ARGV[4]))
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[1])
return 'run'
"""

_RENEW = """
local renewed, expiry = {}, string.format('%.3f', now + ARGV[2])
for i = 3, #ARGV do
  local lease = redis.call('HGET', KEYS[3], ARGV[i])
  if lease and lease:match('^(.*) ') == ARGV[1] then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[1] .. ' ' .. expiry)
    redis.call('ZADD', KEYS[2], expiry, ARGV[i])
    renewed[#renewed + 1] = ARGV[i]
  end
end
return renewed
"""

_DUE = "return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])"

_POSTPONE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return 0
end
local lease = redis.call('HGET', KEYS[3], ARGV[1])
local expiry = lease and tonumber(lease:match(' ([%d.]+)$'))
if expiry and expiry > now then
  redis.call('ZADD', KEYS[2], expiry, ARGV[1])
  return 0
end
local state = redis.call('GETRANGE', KEYS[4], 0, ARGV[4]):match('^{"status": ?"(%u+)"')
if state == 'SUCCESS' or state == 'REVOKED' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1])
return 1
"""

_TAKEN_OVER = """
local lease = redis.call('HGET', KEYS[2], ARGV[1])
if lease then return lease:match('^(.*) ') ~= ARGV[2] and 1 or 0 end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
local state = redis.call('GETRANGE', KEYS[3], 0, ARGV[3]):match('^{"status": ?"(%u+)"')
return (state == 'SUCCESS' or state == 'FAILURE' or state == 'REVOKED') and 1 or 0
"""

_LATER = """
for i = 2, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[i])
  else
    redis.call('ZREM', KEYS[2], ARGV[i])
  end
end
"""

_HASTEN = """
local moment = string.format('%.6f', now)
local later = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. moment, '+inf', 'LIMIT', 0, ARGV[1])
for _, id in ipairs(later) do redis.call('ZADD', KEYS[1], moment, id) end
return #later
"""


@dataclass(frozen=True, kw_only=True)
class TaskMessage:
    """A message that publishes an accepted task.

    Attributes:
        task_id: The task's id, the same each time it is published.
        name: Registered name.
        kwargs: Arguments.
        priority: Lane.
        looks: Number of times that it was published again.
        trace: Trace context of the request that was answered with 202; empty if that request is not traced.
    """

    task_id: str
    name: str
    kwargs: dict[str, Any]
    priority: int
    looks: int = 0
    trace: Carrier = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the stored form, without the trace."""
        return orjson.dumps({"name": self.name, "kwargs": self.kwargs, "priority": self.priority, "looks": self.looks})

    @classmethod
    def from_json(cls, task_id: str, stored: bytes) -> "TaskMessage":
        """Return the message of a stored form."""
        return cls(task_id=task_id, **orjson.loads(stored))


class AcceptedTasks:
    """The store of accepted tasks; `client` is a client of the result store."""

    def __init__(self, client: "Redis", settings: AcceptedSettings | None = None) -> None:
        self._client = client
        self._settings = settings or AcceptedSettings()
        self._add_script: Any = client.register_script(_NOW + _ADD)
        self._due_script: Any = client.register_script(_NOW + _DUE)
        self._claim_script = client.register_script(_NOW + _CLAIM)
        self._renew_script: Any = client.register_script(_NOW + _RENEW)
        self._taken_over_script: Any = client.register_script(_TAKEN_OVER)
        self._postpone_script = client.register_script(_NOW + _POSTPONE)
        self._later_script = client.register_script(_NOW + _LATER)
        self._hasten_script: Any = client.register_script(_NOW + _HASTEN)

    def add(self, message: TaskMessage) -> None:
        """Store a task, before its message is published."""
        task_id, trace = message.task_id, orjson.dumps(message.trace) if message.trace else b""
        self._add_script(
            keys=[MESSAGES, DUE, TRACE_PREFIX + task_id],
            args=[task_id, message.to_json(), self._settings.first_look, trace, TRACE_KEPT],
        )

    def exists(self, task_id: str) -> bool:
        """Return whether the task is accepted and has not finished."""
        return bool(self._client.hexists(MESSAGES, task_id))

    def states(self, task_ids: Sequence[str]) -> dict[str, State]:
        """Return the state of each task by its id."""
        pipe = self._client.pipeline(transaction=False)
        # The message is read before the result: a worker stores the result first, so no task looks lost in between.
        for task_id in task_ids:
            pipe.hexists(MESSAGES, task_id)
            pipe.getrange(RESULT_PREFIX + task_id, 0, RESULT_HEAD)
        answers: list[Any] = pipe.execute() if task_ids else []
        return {
            task_id: "ended" if _is_final(head) else "known" if known else "lost"
            for task_id, known, head in zip(task_ids, answers[::2], answers[1::2], strict=True)
        }

    def claim(self, task_id: str, name: str, worker: str, *, redelivered: bool) -> ClaimResult:
        """Take the lease, unless the task has finished or a worker, this one included, runs it.

        A task that is neither stored nor ended runs too: Redis was emptied, or its sender marked it without storing it.

        Args:
            task_id: The task's id.
            name: The task's name.
            worker: Id of the worker that asks.
            redelivered: Whether the message comes from a dead worker, whose lease then no longer counts.
        """
        head = orjson.dumps({"name": name}).removesuffix(b"}")  # the first field of each stored form
        answer: Any = self._claim_script(
            keys=[MESSAGES, DUE, LEASES, RESULT_PREFIX + task_id],
            args=[task_id, worker, int(redelivered), self._settings.lease, head, RESULT_HEAD],
        )
        decoded: ClaimResult = answer.decode()
        return decoded

    def renew(self, task_ids: list[str], worker: str) -> list[str]:
        """Extend the leases of tasks that this worker runs; return those that are still its own.

        A task just finished or released gets no lease.
        """
        args = [worker, self._settings.lease, *task_ids]
        renewed: Any = self._renew_script(keys=[MESSAGES, DUE, LEASES], args=args)
        return [task_id.decode() for task_id in renewed]

    def was_taken_over(self, task_id: str, worker: str) -> bool:
        """Return whether another worker has run a task since this one took its lease, or has ended it."""
        answer: Any = self._taken_over_script(
            keys=[MESSAGES, LEASES, RESULT_PREFIX + task_id], args=[task_id, worker, RESULT_HEAD]
        )
        return bool(answer)

    def release(self, task_id: str) -> None:
        """Give up the lease of a task that was handed back or will be retried."""
        self._client.hdel(LEASES, task_id)

    def finish(self, *task_ids: str) -> None:
        """Remove tasks whose result is stored, at least one."""
        pipe = self._client.pipeline()
        pipe.hdel(MESSAGES, *task_ids)
        pipe.hdel(LEASES, *task_ids)
        pipe.zrem(DUE, *task_ids)
        pipe.delete(*(TRACE_PREFIX + task_id for task_id in task_ids))
        pipe.execute()

    def due(self, limit: int) -> list[str]:
        """Return the ids of tasks that are to be looked at, the longest due first."""
        due: list[Any] = self._due_script(keys=[DUE], args=[limit])
        return [task_id.decode() for task_id in due]

    def look_later(self, task_ids: Sequence[str]) -> None:
        """Let tasks wait whose messages are in the broker: each is looked at again after a while."""
        if task_ids:
            wait = min(self._settings.longest_wait, WAITS * self._settings.first_look)
            self._later_script(keys=[MESSAGES, DUE], args=[wait, *task_ids])

    def to_publish(self, task_id: str) -> TaskMessage | None:
        """Return the message of a task that is not in the broker; it is due again after a longer wait.

        Returns:
            None if a worker runs the task, or it has ended; its record, if it was left behind, is removed then. (A
            failure is none: a dead letter's is there until it is published again.)
        """
        stored: Any = self._client.hget(MESSAGES, task_id)
        if stored is None:
            self._client.zrem(DUE, task_id)
            return None
        message = TaskMessage.from_json(task_id, stored)
        later = replace(message, looks=message.looks + 1)
        wait = min(self._settings.longest_wait, self._settings.first_look * 2 ** min(later.looks, MOST_DOUBLINGS))
        keys = [MESSAGES, DUE, LEASES, RESULT_PREFIX + task_id]
        kept = self._postpone_script(keys=keys, args=[task_id, later.to_json(), wait, RESULT_HEAD])
        return replace(message, trace=self._trace_of(task_id)) if kept else None

    def hasten(self, epoch: str) -> bool:
        """Make some tasks due, all once per epoch of the broker, which may have lost any of their messages.

        Returns:
            Whether all tasks of that epoch have been made due; if not, call it again.
        """
        if self._client.get(EPOCH) == epoch.encode():
            return True
        if self._hasten_script(keys=[DUE], args=[HASTENED]) == HASTENED:
            return False
        self._client.set(EPOCH, epoch)
        return True

    def _trace_of(self, task_id: str) -> Carrier:
        stored: Any = self._client.get(TRACE_PREFIX + task_id)
        return orjson.loads(stored) if stored else {}


def _is_final(head: bytes) -> bool:
    """Return whether a stored result with this head is the last that its task will have."""
    state = _STATE.match(head)
    return state is not None and state[1] in _FINAL


def publish_accepted(app: "Celery", message: TaskMessage) -> None:
    """Publish the message of an accepted task, as part of the trace in which it was accepted."""
    with tracing.continuing(message.trace):
        app.send_task(
            message.name,
            kwargs=message.kwargs,
            task_id=message.task_id,
            priority=message.priority,
            headers=message.trace | {HEADER: 1},
        )
