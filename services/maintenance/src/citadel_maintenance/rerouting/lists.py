"""Lists of messages: reading their ends, and moving their messages into lanes."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from citadel_common.delivery.queues import lists_of
from citadel_common.delivery.worker_registry import WORKERS
from citadel_contracts import Queue

if TYPE_CHECKING:
    from redis import Redis

BATCH = 50
"""Most messages of one batch."""
BATCH_BYTES = 1 << 20
"""Bytes after which a batch takes no more messages."""
_READ = """
local found, size = {}, 0
for i = ARGV[1] + 1, ARGV[1] + ARGV[2] do
  local entry = redis.call('LINDEX', KEYS[1], -i)
  if not entry then break end
  found[#found + 1] = entry
  size = size + #entry
  if size >= tonumber(ARGV[3]) then break end
end
return found
"""
# LPUSH comes first: a full Redis refuses it, and then nothing must have been removed. LREM meets the entry itself,
# because an equal one before it would have been moved as well.
_MOVE = """
local offset, moved = ARGV[1] + 1, 0
for i = 2, #ARGV, 2 do
  local entry = redis.call('LINDEX', KEYS[1], -offset)
  if not entry or redis.sha1hex(entry) ~= ARGV[i] then break end
  local lane = tonumber(ARGV[i + 1])
  if lane == 0 then
    offset = offset + 1
  else
    redis.call('LPUSH', KEYS[1 + lane], entry)
    redis.call('LREM', KEYS[1], -1, entry)
    moved = moved + 1
  end
end
return moved
"""
# The chosen database holds for the script alone. One with workers of its own is another Citadel's.
_ELSEWHERE = """
redis.call('select', ARGV[1])
local found = {}
if redis.call('EXISTS', KEYS[1]) == 1 then return found end
for i = 2, #KEYS do
  if redis.call('TYPE', KEYS[i]).ok == 'list' then
    found[#found + 1] = {KEYS[i], redis.call('LLEN', KEYS[i]), redis.call('LINDEX', KEYS[i], -1)}
  end
end
return found
"""


class FoundElsewhere(NamedTuple):
    """A list of that name in another database: its length and its oldest entry."""

    key: str
    messages: int
    oldest: bytes


class Lists:
    """Lists in the broker's Redis; the oldest message of a list is its last entry."""

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._read: Any = client.register_script(_READ)
        self._move: Any = client.register_script(_MOVE)
        self._elsewhere: Any = client.register_script(_ELSEWHERE)

    def oldest(self, key: str, *, skip: int = 0) -> list[bytes]:
        """Return a batch of entries, oldest first, without the `skip` oldest ones."""
        found: list[bytes] = self._read(keys=[key], args=[skip, BATCH, BATCH_BYTES])
        return found

    def length(self, key: str) -> int:
        """Return the number of entries."""
        return int(self._client.llen(key))

    def move(self, key: str, entries: Sequence[bytes], lanes: Sequence[str | None], queue: Queue, *, skip: int) -> int:
        """Move entries as `oldest` has returned them into lanes, unchanged and in their order, in one step.

        Args:
            key: Where they are. The first that is not there any more ends the move.
            entries: The entries.
            lanes: Lane of each; None leaves it.
            queue: Queue of the lanes.
            skip: Number of older entries in the list.

        Returns:
            Number of moved entries.
        """
        names = lists_of(queue)
        args: list[Any] = [skip]
        for entry, lane in zip(entries, lanes, strict=True):
            args += [
                hashlib.sha1(entry, usedforsecurity=False).hexdigest(),
                0 if lane is None else names.index(lane) + 1,
            ]
        return int(self._move(keys=[key, *names], args=args))

    def elsewhere(self, database: int, keys: Sequence[str]) -> list[FoundElsewhere]:
        """Return those of the keys that are lists in another database, which is not another Citadel's."""
        found = self._elsewhere(keys=[WORKERS, *keys], args=[database])
        return [FoundElsewhere(key.decode(), messages, oldest) for key, messages, oldest in found]

    def other_databases(self) -> list[int]:
        """Return the numbers of the other databases that hold keys."""
        keyspace: Any = self._client.info("keyspace")
        found = [int(name.removeprefix("db")) for name in keyspace if name.startswith("db")]
        return [number for number in found if number != self.database]

    @property
    def database(self) -> int:
        """Return the number of the broker's own database."""
        return int(self._client.connection_pool.connection_kwargs.get("db") or 0)
