"""The periodic schedule as its leader last stored it in the broker's Redis.

Three keys, bounded by the number of entries: the leader's lock, a hash of the entries' states, and a hash of the
last settled slot of each. A slot is a moment at which an entry is due; the last settled one only ever grows, and
that is what makes every slot run once.
"""

from dataclasses import dataclass

import orjson

LEADER = "citadel:beat:leader"
"""Key of the leader's id; it expires unless renewed."""
ENTRIES = "citadel:beat"
"""Hash of entry name → its state as JSON."""
SLOTS = "citadel:beat:slots"
"""Hash of entry name → last settled slot, in milliseconds since the epoch."""


@dataclass(frozen=True, kw_only=True)
class ScheduledEntry:
    """The state of one entry; times are seconds since the epoch.

    Attributes:
        name: Its name in the schedule.
        task: Registered name of the task.
        when: The interval or crontab, such as `every 5m` or `crontab 0 3 * * *`.
        next_at: The next slot.
        last_slot: The last published slot; None if there is none yet.
        last_task_id: Id of the task published for it.
        published_at: Time of publishing.
        leader: Id of the leader that published it.
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
        """Return the stored form."""
        return orjson.dumps(vars(self))


def parse(stored: bytes | str) -> ScheduledEntry | None:
    """Return the entry of a stored form, without fields of later versions; None if it cannot be read."""
    known = ScheduledEntry.__dataclass_fields__
    try:
        return ScheduledEntry(**{name: value for name, value in orjson.loads(stored).items() if name in known})
    except (ValueError, TypeError, AttributeError):
        return None
