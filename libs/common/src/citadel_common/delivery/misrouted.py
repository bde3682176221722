"""Lists with messages that are meant for Citadel and that no worker reads, as maintenance last found them.

They come from Celery clients whose settings differ from the workers', such as another separator in the names of lists.
The broker's Redis has one hash of them, which `citadel.reroute_messages` brings up to date.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import orjson

from citadel_common.delivery.dead_letter_index import strict_json

if TYPE_CHECKING:
    from redis import Redis

MISROUTED = "citadel:misrouted"
"""Hash of `DATABASE:KEY` → the finding as JSON."""
TTL = 24 * 3600
"""Seconds that findings are kept if maintenance does not run any more, and that one of moved messages is kept."""
MOST = 100
"""Most lists that are kept; a client with a new name for each message must not fill Redis."""
Reason = Literal["separator", "priority_steps", "key_prefix", "database", "queue"]
"""The client's setting that differs: the separator, the steps, a prefix of all keys, the database, the queue's name."""
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True, kw_only=True)
class MisroutedList:
    """A list with messages that no worker reads.

    Attributes:
        key: Its name.
        database: Number of the Redis database.
        queue: The queue that its messages are meant for.
        task: The task that its oldest message names.
        messages: Its length.
        moved: Messages that were moved from it into the queue's lanes so far.
        reason: The client's setting that differs.
        help: What is wrong, and what to do.
        at: When it was last found, in seconds of the server's clock.
    """

    key: str
    database: int
    queue: str
    task: str
    messages: int
    moved: int = 0
    reason: Reason
    help: str
    at: float

    @property
    def field(self) -> str:
        """Return its field in the hash."""
        return f"{self.database}:{self.key}"


def parse(stored: Iterable[bytes]) -> list[MisroutedList]:
    """Return the findings from the hash's values, by queue and name; without those that cannot be read."""
    found = [one for value in stored if (one := _parsed(value)) is not None]
    return sorted(found, key=lambda one: (one.queue, one.field))


def _parsed(stored: bytes) -> MisroutedList | None:
    known = MisroutedList.__dataclass_fields__
    try:
        fields = orjson.loads(stored)
        return MisroutedList(**{name: fields[name] for name in known}) if fields["reason"] in REASONS else None
    except (ValueError, TypeError, KeyError):
        return None


class MisroutedLists:
    """The stored findings, as one scan of the database after the other changes them.

    Args:
        client: Client of the broker's Redis.
        scan: Identifies the scan; runs that continue it share it.
    """

    def __init__(self, client: "Redis", scan: str) -> None:
        self._client = client
        self._scan = scan

    def add(self, found: MisroutedList) -> bool:
        """Store a finding in place of the earlier one of that list, unless there are too many.

        Returns:
            Whether it is stored, and there was no earlier one.
        """
        earlier: Any = self._client.hget(MISROUTED, found.field)
        if earlier is None and self._client.hlen(MISROUTED) >= MOST:
            return False
        moved = found.moved + (0 if earlier is None else orjson.loads(earlier)["moved"])
        self._client.hset(MISROUTED, found.field, strict_json(asdict(found) | {"moved": moved, "scan": self._scan}))
        self._client.expire(MISROUTED, TTL)
        return earlier is None

    def forget_older(self, now: float) -> None:
        """Remove what this scan has not found again; what was moved stays for a day after that."""
        stored: Any = self._client.hgetall(MISROUTED)
        gone = [field for field, value in stored.items() if self._is_over(orjson.loads(value), now)]
        if gone:
            self._client.hdel(MISROUTED, *gone)

    def _is_over(self, found: dict[str, Any], now: float) -> bool:
        return bool(found["scan"] != self._scan and (found["moved"] == 0 or now - found["at"] > TTL))
