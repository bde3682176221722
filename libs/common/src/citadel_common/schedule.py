"""The periodic schedule as its leader last told it: kept in the broker's Redis, for whoever shows it.

Three keys, bounded by the number of entries: the leader's lock, a hash of the entries' states, and a hash of the
last settled slot of each. A slot is a moment at which an entry is due; the last settled one only ever grows, and
that is what makes every slot run once.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from redis import Redis

LEADER = "citadel:beat:leader"
"""Who leads; expires unless renewed."""
ENTRIES = "citadel:beat"
"""Hash of entry name → its state as JSON."""
SLOTS = "citadel:beat:slots"
"""Hash of entry name → last settled slot, in milliseconds since the epoch."""


@dataclass(frozen=True, kw_only=True)
class ScheduledEntry:
    """What is known of one entry; times are seconds since the epoch.

    Attributes:
        name: Its name in the schedule.
        task: Registered name of the task.
        when: Such as `every 5m` or `crontab 0 3 * * *`.
        next_at: The next slot.
        last_slot: The last slot that was published; None for none yet.
        last_task_id: Id of the task published for it.
        published_at: When that was.
        leader: Who said so.
    """

    name: str
    task: str
    when: str
    next_at: float
    last_slot: float | None = None
    last_task_id: str | None = None
    published_at: float | None = None
    leader: str

    def to_json(self) -> bytes:
        """The stored form."""
        return orjson.dumps(vars(self))


def parse(stored: bytes | str) -> ScheduledEntry | None:
    """A stored entry; fields of later versions are ignored. None for what cannot be read."""
    known = ScheduledEntry.__dataclass_fields__
    try:
        return ScheduledEntry(**{name: value for name, value in orjson.loads(stored).items() if name in known})
    except (ValueError, TypeError, AttributeError):
        return None


class Schedule:
    """Reads the schedule; `client` is a client of the broker's Redis."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def entries(self) -> list[ScheduledEntry]:
        """The entries by name; none before a first leader."""
        stored: Any = self._client.hvals(ENTRIES)
        return sorted(filter(None, map(parse, stored)), key=lambda entry: entry.name)

    def leader(self) -> str | None:
        """Who leads now; None for nobody."""
        holder: Any = self._client.get(LEADER)
        return None if holder is None else str(holder, "utf-8")
