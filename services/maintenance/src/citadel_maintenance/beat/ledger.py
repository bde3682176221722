"""The ledger of slots in the broker's Redis: which slots are settled.

A slot is settled by one script, so it happens completely or not at all. The script checks that the caller leads and
that the slot is later than the last settled one, pushes the message to the queue's list, and records the slot. A
candidate that is killed, paused or cut off at any point has either published a slot or not, and nobody publishes it
again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from citadel_maintenance.beat.schedule import ENTRIES, LEADER, SLOTS, ScheduledEntry, parse

if TYPE_CHECKING:
    from redis import Redis

Outcome = Literal["done", "settled", "not_leader"]
"""Outcome of `settle`; `settled`: the slot, or a later one, was settled before."""
# The leader's lock is checked here and not before: a candidate that was paused after it looked at its lock may wake
# up when another one leads. The push comes before the records: if it fails, for example on a key that is not a list,
# the script ends with nothing recorded, and the slot can be settled again.
_SETTLE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'not_leader' end
local last = redis.call('HGET', KEYS[2], ARGV[2])
if last and tonumber(last) >= tonumber(ARGV[3]) then return 'settled' end
if ARGV[5] ~= '' then redis.call('LPUSH', KEYS[4], ARGV[5]) end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 'done'
"""
# The only way back for a settled slot, so it too is for the leader alone.
_REWIND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
"""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message to publish, and the Redis list that it goes to."""

    list_name: str
    text: str


class Ledger:
    """One candidate's access to the ledger.

    Args:
        client: Client of the broker's Redis.
        token: The candidate's token in the leader's lock.
    """

    def __init__(self, client: "Redis", token: str) -> None:
        self._client = client
        self._token = token
        self._settle: Any = client.register_script(_SETTLE)
        self._rewind: Any = client.register_script(_REWIND)

    def slots(self) -> dict[str, int]:
        """Return the last settled slot of each entry."""
        stored: Any = self._client.hgetall(SLOTS)
        return {str(name, "utf-8"): int(slot) for name, slot in stored.items()}

    def states(self) -> dict[str, ScheduledEntry | None]:
        """Return the last state of each entry; None for one that cannot be read."""
        stored: Any = self._client.hgetall(ENTRIES)
        return {str(name, "utf-8"): parse(state) for name, state in stored.items()}

    def introduce(self, states: Iterable[ScheduledEntry], slots: Mapping[str, int], removed: Iterable[str]) -> None:
        """Record the entries' states, give new entries their first settled slot, and delete removed entries."""
        pipe = self._client.pipeline()
        for name, slot in slots.items():
            pipe.hsetnx(SLOTS, name, str(slot))
        for state in states:
            pipe.hset(ENTRIES, state.name, state.to_json())
        for name in removed:
            pipe.hdel(SLOTS, name)
            pipe.hdel(ENTRIES, name)
        pipe.execute()

    def settle(self, state: ScheduledEntry, slot: int, message: Message | None) -> Outcome:
        """Settle a slot: publish its message, or skip the slot if there is none."""
        list_name, text = (message.list_name, message.text) if message else (ENTRIES, "")
        outcome: Any = self._settle(
            keys=[LEADER, SLOTS, ENTRIES, list_name],
            args=[self._token, state.name, slot, state.to_json(), text],
        )
        decoded: Outcome = outcome.decode()
        return decoded

    def rewind(self, name: str, slot: int) -> None:
        """Set an entry's last settled slot back, if this candidate leads."""
        self._rewind(keys=[LEADER, SLOTS], args=[self._token, name, slot])
