"""The ledger of slots in the broker's Redis: which are settled, and the one step that settles another.

That step is a script, so it happens as a whole or not at all: it checks that the caller leads and that the slot is
later than the last settled one, puts the message on the queue's list and notes the slot. A candidate that was
killed, paused or cut off at any point has published a slot or has not, and nobody publishes it again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from citadel_common.schedule import ENTRIES, LEADER, SLOTS, ScheduledEntry, parse

if TYPE_CHECKING:
    from redis import Redis

Outcome = Literal["done", "settled", "not_leader"]
"""What a settlement came to; `settled`: the slot, or a later one, was settled before."""
_SETTLE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'not_leader' end
local last = redis.call('HGET', KEYS[2], ARGV[2])
if last and tonumber(last) >= tonumber(ARGV[3]) then return 'settled' end
if ARGV[5] ~= '' then redis.call('LPUSH', KEYS[4], ARGV[5]) end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 'done'
"""
_REWIND = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
"""


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A message and the Redis list that it belongs on."""

    list_name: str
    message: str


class Ledger:
    """The ledger, as one candidate writes it.

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
        """The last settled slot of each entry."""
        stored: Any = self._client.hgetall(SLOTS)
        return {str(name, "utf-8"): int(slot) for name, slot in stored.items()}

    def states(self) -> dict[str, ScheduledEntry | None]:
        """What was last said of each entry; None where it cannot be read."""
        stored: Any = self._client.hgetall(ENTRIES)
        return {str(name, "utf-8"): parse(state) for name, state in stored.items()}

    def introduce(self, states: Iterable[ScheduledEntry], slots: Mapping[str, int], gone: Iterable[str]) -> None:
        """Tells of the entries, notes from when on those are run that are new, and forgets those that are gone."""
        pipe = self._client.pipeline()
        for name, slot in slots.items():
            pipe.hsetnx(SLOTS, name, str(slot))
        for state in states:
            pipe.hset(ENTRIES, state.name, state.to_json())
        for name in gone:
            pipe.hdel(SLOTS, name)
            pipe.hdel(ENTRIES, name)
        pipe.execute()

    def settle(self, state: ScheduledEntry, slot: int, parcel: Parcel | None) -> Outcome:
        """Publishes a slot's message and notes the slot; without a message the slot is passed over."""
        list_name, message = (parcel.list_name, parcel.message) if parcel else (ENTRIES, "")
        outcome: Any = self._settle(
            keys=[LEADER, SLOTS, ENTRIES, list_name],
            args=[self._token, state.name, slot, state.to_json(), message],
        )
        decoded: Outcome = outcome.decode()
        return decoded

    def rewind(self, name: str, slot: int) -> None:
        """Sets an entry's last settled slot back, if this candidate leads."""
        self._rewind(keys=[LEADER, SLOTS], args=[self._token, name, slot])
