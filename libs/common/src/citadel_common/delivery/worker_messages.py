"""The messages of one worker in Redis: how they are taken from the lanes, acknowledged and given back.

Each move is one script, so a message is at every moment in exactly one place: its lane, an inbox of a worker, or the
hash of the messages that a worker holds. A script of Redis is not rolled back when it fails. So each of these checks,
before it removes a message from one place, whatever could keep it from entering the other one, or puts it back. Each
removes first and adds then: Redis that has no memory left refuses a script's first write if it adds, and a full Redis
can only be emptied by workers that go on taking.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.commands.core import Script

from citadel_common.delivery import tracked_messages
from citadel_common.delivery.entries import entry_to_give_back, held_suffix, step_of
from citadel_common.delivery.queues import STEPS, lists_of
from citadel_common.delivery.worker_registry import WORKERS, held_message_keys, inbox_of
from citadel_contracts import Lane

if TYPE_CHECKING:
    from redis import Redis

MOST_BYTES = 4 * 1024 * 1024
"""Bytes of messages after which one taking takes no more."""
_AT_ONCE = 16
"""Messages given back by one command."""
_FIRST_BATCH = 1 + next(place for place, step in enumerate(STEPS) if step >= Lane.BATCH)

_TAKE = """
-- KEYS: held hash, its index, worker registry, lanes by priority, their inboxes.
-- ARGV: worker id, prefix of tags, room, room of the batch lane, number of its first list, peers, most bytes,
--       suffix of stored forms, step of each lane, tags that are acknowledged.
local held, index, lanes = KEYS[1], KEYS[2], (#KEYS - 3) / 2
local room, batch_room, first_batch = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local peers, bytes, now = tonumber(ARGV[6]), tonumber(ARGV[7]), redis.call('TIME')[1]
for i = 9 + lanes, #ARGV do
  redis.call('ZREM', index, ARGV[i])
  redis.call('HDEL', held, ARGV[i])
end
-- Peers that have given everything back, taking the worker for dead, would not look at what it takes now.
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return {0} end
local wrong, taken, failure = {}, {}, nil
local function places(lane)
  return lane >= first_batch and math.min(room, batch_room) or room
end
local function take(list, most, lane)
  while most > 0 and bytes > 0 and not failure do
    local entry = redis.pcall('RPOP', list)
    if not entry then return end
    if type(entry) == 'table' then
      if string.find(entry.err, 'WRONGTYPE', 1, true) then wrong[#wrong + 1] = list else failure = entry end
      return
    end
    local tag = ARGV[8 + lane] .. '-' .. ARGV[2] .. '-' .. #taken / 3
    local noted = redis.pcall('HSET', held, tag, '[' .. entry .. ARGV[8])
    if type(noted) == 'table' then
      redis.call('RPUSH', list, entry)
      failure = noted
      return
    end
    redis.call('ZADD', index, now, tag)
    taken[#taken + 1], taken[#taken + 2], taken[#taken + 3] = tag, lane, entry
    most, room, bytes = most - 1, room - 1, bytes - #entry
    if lane >= first_batch then batch_room = batch_room - 1 end
  end
end
local inboxes = redis.call('EXISTS', unpack(KEYS, 4 + lanes)) > 0
for lane = 1, lanes do
  local list, inbox = KEYS[3 + lane], KEYS[3 + lanes + lane]
  if inboxes then take(inbox, places(lane), lane) end
  if places(lane) > 0 and bytes > 0 then
    local waiting = redis.pcall('LLEN', list)
    if type(waiting) == 'table' then wrong[#wrong + 1] = list
    else take(list, math.min(places(lane), math.ceil(waiting / peers)), lane) end
  end
  if failure then return failure end
  local kind = inboxes and redis.call('TYPE', list).ok
  -- What there is no room for goes back to the end from which it is taken next.
  while kind == 'list' or kind == 'none' do
    local entry = redis.pcall('LPOP', inbox)
    if type(entry) ~= 'string' then break end
    redis.call('RPUSH', list, entry)
  end
end
return {1, wrong, taken}
"""
_GIVE_BACK = """
-- KEYS: held hash, its index, worker registry, lanes.
-- ARGV: worker id, its last beat or '', the command that adds, then tag, lane number and entry of each message.
if ARGV[2] ~= '' and redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[2] then return -1 end
local returned = 0
for i = 4, #ARGV, 3 do
  local list = KEYS[3 + ARGV[i + 1]]
  local kind = redis.call('TYPE', list).ok
  if (kind == 'list' or kind == 'none') and redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call(ARGV[3], list, ARGV[i + 2])
    returned = returned + 1
  end
end
return returned
"""
_EMPTY_INBOXES = """
-- KEYS: worker registry, lanes, their inboxes. ARGV: worker id, its last beat or ''.
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return -1 end
local returned, lanes = 0, (#KEYS - 1) / 2
for lane = 1, lanes do
  local kind = redis.call('TYPE', KEYS[1 + lane]).ok
  while kind == 'list' or kind == 'none' do
    local entry = redis.pcall('LPOP', KEYS[1 + lanes + lane])
    if type(entry) ~= 'string' then break end
    redis.call('RPUSH', KEYS[1 + lane], entry)
    returned = returned + 1
  end
end
return returned
"""
_FORGET = """
-- KEYS: worker registry, index, mutex, held hash, inboxes. ARGV: worker id, its last beat.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
redis.call('DEL', KEYS[2], KEYS[3])
return redis.call('HDEL', KEYS[1], ARGV[1])
"""


@dataclass(frozen=True, kw_only=True)
class WorkerLane:
    """One of the lists that a worker takes from, and the list into which Redis moves what arrives while it waits.

    Attributes:
        step: Kombu's priority step; 0 is taken first.
        key: Key of the lane.
        inbox: Key of the worker's inbox of this lane.
    """

    step: int
    key: str
    inbox: str

    @property
    def is_batch(self) -> bool:
        """True if it belongs to the batch lane."""
        return self.step >= Lane.BATCH


@dataclass(frozen=True, kw_only=True)
class Taking:
    """The answer to one taking.

    Attributes:
        is_registered: False if the registry does not have the worker, which takes nothing then.
        wrong_keys: Keys of a wrong type where lanes or inboxes belong.
        messages: Tags and list entries of the messages that the worker holds from now on.
    """

    is_registered: bool
    wrong_keys: tuple[str, ...] = ()
    messages: tuple[tuple[str, bytes], ...] = ()


class WorkerMessages:
    """The lanes of one queue, and what one worker holds of it.

    Args:
        client: Client of the broker's Redis.
        worker_id: The worker's id.
        queue: Name of its queue.
    """

    def __init__(self, client: "Redis", worker_id: str, queue: str) -> None:
        keys = held_message_keys(worker_id)
        self._client = client
        self._worker_id = worker_id
        self._suffix = held_suffix(queue)
        self._held, self._index, self._mutex = keys["unacked_key"], keys["unacked_index_key"], keys["unacked_mutex_key"]
        self.lanes = [
            WorkerLane(step=step, key=key, inbox=inbox_of(worker_id, key))
            for step, key in zip(STEPS, lists_of(queue), strict=True)
        ]
        self._lane_keys, self._inboxes = [lane.key for lane in self.lanes], [lane.inbox for lane in self.lanes]
        self._scripts: dict[str, Any] = {}

    def take(
        self,
        *,
        room: int,
        batch_room: int,
        peers: int,
        acknowledged: Sequence[str] = (),
        most_bytes: int = MOST_BYTES,
    ) -> Taking:
        """Remove acknowledged messages and take new ones, by priority.

        Args:
            room: Messages to take at most.
            batch_room: Those of the batch lane at most.
            peers: Workers of the queue. Of what waits in a lane one takes a share, so that others get theirs.
            acknowledged: Tags of held messages that are done.
            most_bytes: After so many bytes no more is taken; the first message is, whatever its size.
        """
        limits = [room, batch_room, _FIRST_BATCH, max(peers, 1), most_bytes]
        keys = [self._held, self._index, WORKERS, *self._lane_keys, *self._inboxes]
        args = [self._worker_id, uuid.uuid4().hex[:12], *limits, self._suffix, *STEPS, *acknowledged]
        answer = self._run(_TAKE, keys, args)
        if not answer[0]:
            return Taking(is_registered=False)
        _, wrong, taken = answer
        return Taking(
            is_registered=True,
            wrong_keys=tuple(key.decode() for key in wrong),
            messages=tuple((tag.decode(), entry) for tag, entry in zip(taken[::3], taken[2::3], strict=True)),
        )

    def acknowledge(self, tags: Sequence[str]) -> None:
        """Remove messages that are done."""
        pipe = self._client.pipeline(transaction=False)
        pipe.zrem(self._index, *tags)
        pipe.hdel(self._held, *tags)
        pipe.execute()

    def release_marks(self, marks: Sequence[tuple[str, str]]) -> None:
        """Remove the marks of acknowledged messages; see `tracked_messages`."""
        tracked_messages.release(self._client, marks)

    def tags(self) -> list[str]:
        """Return the tags of all held messages."""
        fields: Any = self._client.hkeys(self._held)
        return [field.decode() for field in fields]

    def holds(self, tag: str) -> bool:
        """Return whether a message is still held."""
        return bool(self._client.hexists(self._held, tag))

    def give_back(
        self,
        tags: Sequence[str],
        *,
        redelivered: bool,
        last: bool = False,
        judged_by: bytes = b"",
        died_with: str | None = None,
    ) -> int:
        """Put held messages back into their lanes.

        Args:
            tags: Their tags.
            redelivered: Mark them as delivered before.
            last: Put them behind all that waits there, not before it.
            judged_by: The worker's last heartbeat; if it has beaten since, nothing is given back.
            died_with: Id of the worker that died with them.

        Returns:
            How many are back. Others are gone already, or a lane's key is of a wrong type.
        """
        returned = 0
        for start in range(0, len(tags), _AT_ONCE):
            some = list(tags[start : start + _AT_ONCE])
            stored: Any = self._client.hmget(self._held, some)
            args: list[Any] = [self._worker_id, judged_by, "LPUSH" if last else "RPUSH"]
            for tag, held in zip(some, stored, strict=True):
                if held is not None:
                    entry = entry_to_give_back(held, redelivered=redelivered, died_with=died_with)
                    args += [tag, STEPS.index(step_of(tag, held)) + 1, entry]
            keys = [self._held, self._index, WORKERS, *self._lane_keys]
            returned += max(self._run(_GIVE_BACK, keys, args), 0)
        return returned

    def empty_inboxes(self, *, judged_by: bytes = b"") -> int:
        """Put what is in the inboxes back into the lanes; return the number of messages."""
        keys = [WORKERS, *self._lane_keys, *self._inboxes]
        return max(int(self._run(_EMPTY_INBOXES, keys, [self._worker_id, judged_by])), 0)

    def forget(self, *, judged_by: bytes) -> bool:
        """Remove the worker from the registry, if it holds nothing and has not beaten since."""
        keys = [WORKERS, self._index, self._mutex, self._held, *self._inboxes]
        return bool(self._run(_FORGET, keys, [self._worker_id, judged_by]))

    def _run(self, text: str, keys: list[str], args: list[Any]) -> Any:
        """Run a script; a server that has lost it, as after a restart, is given it again."""
        script = self._scripts.get(text)
        if script is None:
            script = self._scripts[text] = Script(self._client, text)
        return script(keys=keys, args=args)
