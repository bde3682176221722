"""Tracked messages: those whose senders have to know if they are still in the broker.

A message that is in Redis is not lost, however long it waits and whoever dies: it is in a lane, held by a worker, or
among the timers. It is lost if Redis lost data, or if its sender died before it published. So a sender publishes again
only what is not there, and a backlog makes no further messages.

A tracked message has *names*: the id of an accepted task, or the attempts of steps whose texts it carries. Each name
has a mark in the broker, a key with the message's delivery tag. The mark is set in the transaction that publishes the
message, and removed after the message was acknowledged, unless a newer message has the mark by then. So Redis loses
both or none, in a restart or a failover too, and a look is one read, whatever waits in the lanes.

A mark may outlive its message: a worker of an older version does not remove it, and an operator may empty a list. Such
a mark does not count once nothing waits or is held in its queues.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from citadel_common.delivery.accepted_tasks import HEADER as ACCEPTED_HEADER
from citadel_common.delivery.queues import lists_of
from citadel_common.delivery.worker_registry import UNACKED_PREFIX, WORKERS
from citadel_contracts import Queue

if TYPE_CHECKING:
    from redis import Redis

HEADER = "citadel_tracked"
"""Message header: the names of a tracked message. That of an accepted task is its id, without this header."""
MARK_PREFIX = "citadel:tracked:"
KEPT = 7 * 86_400
"""Seconds that a mark is kept after the last look at it: far more than workers may be away, for nobody looks then."""
ANSWERED = "answered"
"""Value of a mark in place of the tag: the message was worked off, and its answer is on the way."""
ANSWERED_KEPT = 15
"""Seconds that such a mark is kept: longer than an answer that was taken needs to be recorded."""
TIMERS = "citadel:timers:{}:messages"
"""Hash of the messages of a queue whose time has not come, by delivery tag."""
LONGEST_NAME = 500
_RELEASE = """
for i, mark in ipairs(KEYS) do
  if redis.call('GET', mark) == ARGV[i] then redis.call('DEL', mark) end
end
"""
# Nothing is read but lengths. While a lane has messages the workers are not even asked.
_LOOK = """
local prefix, unacked, kept, queues = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local busy = false
for i = 2, queues + 1 do busy = busy or redis.call('HLEN', KEYS[i]) > 0 end
for i = queues + 2, #KEYS do busy = busy or redis.call('LLEN', KEYS[i]) > 0 end
for _, worker in ipairs(busy and {} or redis.call('HKEYS', KEYS[1])) do
  busy = busy or redis.call('HLEN', unacked .. worker) > 0
  for i = queues + 2, #KEYS do
    busy = busy or redis.call('LLEN', unacked .. worker .. ':inbox:' .. KEYS[i]) > 0
  end
end
local found = {}
for i = 5, #ARGV do
  local mark = prefix .. ARGV[i]
  local value = redis.call('GET', mark)
  if value and (busy or value == 'answered') then
    if value ~= 'answered' then redis.call('EXPIRE', mark, kept) end
    found[#found + 1] = 1
  else
    redis.call('DEL', mark)
    found[#found + 1] = 0
  end
end
return found
"""


def names_of(headers: object) -> list[str]:
    """Return the names of a message, given its headers; none if it is not tracked."""
    if not isinstance(headers, Mapping):
        return []
    if headers.get(ACCEPTED_HEADER) and _is_name(headers.get("id")):
        return [headers["id"]]
    names = headers.get(HEADER)
    return [name for name in names if _is_name(name)] if isinstance(names, list) else []


def _is_name(value: object) -> bool:
    """Return whether a key may have that name; a foreign message may hold anything."""
    return isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_NAME


def mark(pipe: Any, names: Iterable[str], tag: str) -> None:
    """Add the commands that set marks to the transaction that publishes the message with that delivery tag."""
    for name in names:
        pipe.set(MARK_PREFIX + name, tag, ex=KEPT)


def mark_answered(pipe: Any, names: Iterable[str]) -> None:
    """Add the commands to the transaction that sends the answers of tracked messages."""
    for name in names:
        pipe.set(MARK_PREFIX + name, ANSWERED, ex=ANSWERED_KEPT)


def release(client: "Redis", marks: Sequence[tuple[str, str]]) -> None:
    """Remove the marks of acknowledged messages, given as pairs of name and delivery tag."""
    client.eval(_RELEASE, len(marks), *(MARK_PREFIX + name for name, _ in marks), *(tag for _, tag in marks))


class TrackedMessages:
    """Looks for tracked messages.

    Args:
        client: Client of the broker's Redis.
        queues: Where the messages may be; by default in any queue.
    """

    def __init__(self, client: "Redis", queues: Sequence[Queue] = tuple(Queue)) -> None:
        self._look: Any = client.register_script(_LOOK)
        timers = [TIMERS.format(queue.value) for queue in queues]
        self._keys = [WORKERS, *timers, *(name for queue in queues for name in lists_of(queue))]
        self._args = [MARK_PREFIX, UNACKED_PREFIX, KEPT, len(timers)]

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the names whose messages are not in the broker.

        Raises:
            redis.RedisError: Redis does not answer, so nothing is known.
        """
        if not names:
            return []
        found = self._look(keys=self._keys, args=[*self._args, *names])
        return [name for name, is_there in zip(names, found, strict=True) if not is_there]
