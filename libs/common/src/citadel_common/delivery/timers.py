"""Durable timers: tasks whose time has not come wait in the broker, not in the memory of a worker.

A worker that takes such a task moves it from what it holds to the queue's timers, in one script. From then on no
worker has it: none can forget it, and none keeps a place of its prefetch for it. Every worker of the queue releases
what is due; there is no leader. Only the server's clock decides what is due.

Keys per queue, all written by the scripts below, so that an entry is in a lane, held, or waiting, and never in two:

- `citadel:timers:QUEUE:STEP`, for each of the four lanes: a sorted set of names by due time;
- `citadel:timers:QUEUE:messages`: a hash of name to message;
- `citadel:timers:QUEUE:same-id:TASK`: a set of further names, if several messages with one task id wait;
- `citadel:timers:QUEUE:released`: a hash of lane to the last message released into it.

A name is the task's id, so that a revoke finds the message without a search. The name of a further message with the
same id (a client used it again) has the delivery tag added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from citadel_common.delivery.entries import held_suffix
from citadel_common.delivery.queues import STEPS, lists_of, timer_keys, timers_prefix
from citadel_contracts import Queue

if TYPE_CHECKING:
    from redis import Redis

BATCH = 100
"""Most messages released into one lane by one call: well under a millisecond of the server."""
MOST_BYTES = 4 * 1024 * 1024
"""Bytes after which such a batch ends."""
NOT_YET = 0.02
"""Seconds until the next look while messages are due whose lane still has those released before."""

Answer = Literal["waits", "due", "expired", "lost"]
"""Answer to `wait`: the message waits now, its time has come, it has expired, or this worker no longer holds it."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""
# Redis refuses a script's first write when its memory is full and that write may need more. So both scripts that move
# messages remove first; what they add then is let through, and in sum they need nothing.
_WAIT = (
    """
local held, index, waiting, messages, same_id = unpack(KEYS)
local tag, id, suffix, eta, expires = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local stored = redis.call('HGET', held, tag)
if not stored then return 'lost' end
"""
    + _NOW
    + """
if expires and expires <= now then return 'expired' end
if eta <= now then return 'due' end
redis.call('HDEL', held, tag)
redis.call('ZREM', index, tag)
local name = id
if redis.call('HSETNX', messages, id, '') == 0 then
  name = id .. '\\31' .. tag
  redis.call('SADD', same_id, name)
end
redis.call('HSET', messages, name, stored:sub(2, -1 - #suffix))
redis.call('ZADD', waiting, string.format('%.6f', math.min(eta, expires or eta)), name)
return 'waits'
"""
)
# The batch goes to the end of the lane from which messages are taken, the earliest last, so that it is taken first. A
# further batch would be taken before the rest of this one: it waits until this one's latest message is gone.
_RELEASE = (
    _NOW
    + """
local lanes, batch, most_bytes, prefix = #KEYS / 2 - 1, tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local messages, released = KEYS[#KEYS - 1], KEYS[#KEYS]
local moved, pause = 0, nil
local function look_again(seconds) pause = math.min(pause or seconds, seconds) end

local function is_taken(lane, list)
  local last = redis.call('HGET', released, lane)
  if not last then return true end
  if redis.call('LPOS', list, last, 'RANK', -1, 'MAXLEN', 2 * batch) then return false end
  redis.call('HDEL', released, lane)
  return true
end

local function release(lane, waiting, list)
  local names = redis.call('ZRANGE', waiting, '-inf', string.format('%.6f', now), 'BYSCORE', 'LIMIT', 0, batch)
  local count, bytes, last = 0, 0, nil
  while count < #names and bytes < most_bytes do
    count = count + 1
    bytes = bytes + redis.call('HSTRLEN', messages, names[count])
  end
  for i = count, 1, -1 do
    local name = names[i]
    local message = redis.call('HGET', messages, name)
    redis.call('ZREM', waiting, name)
    redis.call('HDEL', messages, name)
    local id = name:match('^(.*)\\31')
    if id then redis.call('SREM', prefix .. id, name) end
    if message then
      redis.call('RPUSH', list, message)
      last = last or message
      moved = moved + 1
    end
  end
  if last then redis.call('HSET', released, lane, last) end
end

for lane = 1, lanes do
  local waiting, list = KEYS[lane], KEYS[lane + lanes]
  local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
  local due = tonumber(first[2])
  if due and due > now then
    look_again(due - now)
  elseif due then
    local kind = redis.call('TYPE', list).ok
    if (kind == 'list' or kind == 'none') and is_taken(lane, list) then release(lane, waiting, list) end
    look_again(tonumber(ARGV[4]))
  end
end
return {moved, tostring(pause or '')}
"""
)
_REMOVE = """
local messages, same_id = KEYS[#KEYS - 1], KEYS[#KEYS]
local names = redis.call('SMEMBERS', same_id)
names[#names + 1] = ARGV[1]
local removed = 0
for _, name in ipairs(names) do
  removed = removed + redis.call('HDEL', messages, name)
  for lane = 1, #KEYS - 2 do redis.call('ZREM', KEYS[lane], name) end
end
redis.call('DEL', same_id)
return removed
"""


def messages_key(queue: Queue) -> str:
    """Return the key of the hash of a queue's waiting messages."""
    return f"{timers_prefix(queue)}messages"


@dataclass(frozen=True, kw_only=True)
class WaitingTask:
    """A message that a worker holds and whose time may not have come.

    Attributes:
        task_id: The task's id.
        tag: The message's delivery tag.
        step: Priority step of the lane that it came from, and goes back to.
        eta: Its time, in seconds since the epoch.
        expires: Time after which it must not run, or None.
    """

    task_id: str
    tag: str
    step: int
    eta: float
    expires: float | None


@dataclass(frozen=True, kw_only=True)
class Released:
    """The outcome of one look at the timers.

    Attributes:
        moved: Number of messages released.
        pause: Seconds until a look may find something; None if nothing waits.
    """

    moved: int
    pause: float | None


class Timers:
    """The timers of one queue; `client` is a client of the broker's Redis. Every method raises its errors."""

    def __init__(self, client: "Redis", queue: Queue) -> None:
        self._client = client
        self._lists = lists_of(queue.value)
        self._waiting = timer_keys(queue)
        self._messages, self._released = messages_key(queue), f"{timers_prefix(queue)}released"
        self._same_id = f"{timers_prefix(queue)}same-id:"
        self._suffix = held_suffix(queue.value)
        self._wait: Any = client.register_script(_WAIT)
        self._release: Any = client.register_script(_RELEASE)
        self._remove: Any = client.register_script(_REMOVE)

    def wait(self, task: WaitingTask, held: str, index: str) -> Answer:
        """Move a message that this worker holds to the timers, unless its time has come.

        Args:
            task: The message.
            held: Key of the hash of the messages that this worker holds.
            index: Key of that hash's index.
        """
        waiting = self._waiting[STEPS.index(task.step)]
        answer: Any = self._wait(
            keys=[held, index, waiting, self._messages, self._same_id + task.task_id],
            args=[task.tag, task.task_id, self._suffix, task.eta, "" if task.expires is None else task.expires],
        )
        decoded: Answer = answer.decode()
        return decoded

    def release(self) -> Released:
        """Move messages that are due to their lanes."""
        moved, pause = self._release(
            keys=[*self._waiting, *self._lists, self._messages, self._released],
            args=[BATCH, MOST_BYTES, self._same_id, NOT_YET],
        )
        return Released(moved=int(moved), pause=float(pause) if pause else None)

    def remove(self, task_ids: Sequence[str]) -> int:
        """Remove the messages of tasks that wait for their time; return how many, whatever number of others waits."""
        pipe = self._client.pipeline(transaction=False)
        for task_id in task_ids:
            keys = [*self._waiting, self._messages, self._same_id + task_id]
            self._remove(keys=keys, args=[task_id], client=pipe)
        return sum(pipe.execute()) if task_ids else 0


def remove_waiting(client: "Redis", task_ids: Sequence[str]) -> int:
    """Remove the messages of tasks that wait for their time in any queue, as those of revoked tasks."""
    return sum(Timers(client, queue).remove(task_ids) for queue in Queue)
