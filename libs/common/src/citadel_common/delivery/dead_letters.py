"""Dead letters: tasks and messages that will not be tried again, kept with all that is needed to look and retry.

In the results store: a hash of the letters, a hash of their heads (what lists show and filters ask for, so that
neither reads arguments), a sorted set of their times, and a hash of how many there are by queue and code. A script
changes all four at once. Lists walk the sorted set from the newest, a bounded number of heads at a time.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from citadel_common.delivery.dead_letter_index import (
    SHOWN,
    START,
    DeadLetterFilter,
    DeadLetterHead,
    DeadLetterPage,
    Position,
    strict_json,
)
from citadel_common.errors import Conflict

if TYPE_CHECKING:
    from redis import Redis

LETTERS = "citadel:dead-letters"
HEADS = "citadel:dead-letters:heads"
INDEX = "citadel:dead-letters:by-time"
COUNTS = "citadel:dead-letters:counts"
CLAIM_PREFIX = "citadel:dead-letters:claim:"
KEYS = (LETTERS, HEADS, INDEX, COUNTS)
HISTORY_HEADER = "citadel_history"
"""Message header: the earlier attempts, see `DeadLetter.history`."""
HISTORY_LENGTH = 10
EXPIRED_AT_ADD = 100
CHUNK = 500
MOST_EXAMINED = 2000
"""Heads that one page looks at."""
CLAIM_MS = 60_000
"""Milliseconds one operator's claim lasts, should its process die with it."""

_FORGET = """
local function forget(id)
  local head = redis.call('HGET', KEYS[2], id)
  if not head then return 0 end
  local kind = cjson.decode(head)
  local name = kind.queue .. '\\31' .. kind.code
  if redis.call('HINCRBY', KEYS[4], name, -1) <= 0 then redis.call('HDEL', KEYS[4], name) end
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  return 1
end
"""
_ADD = (
    _FORGET
    + """
forget(ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
redis.call('HINCRBY', KEYS[4], ARGV[5], 1)
"""
)
_REMOVE = (
    _FORGET
    + """
local removed = 0
for i = 1, #ARGV, 2 do
  local at = redis.call('ZSCORE', KEYS[3], ARGV[i])
  if at and (ARGV[i + 1] == '' or tonumber(at) == tonumber(ARGV[i + 1])) then removed = removed + forget(ARGV[i]) end
end
return removed
"""
)
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One task or message put aside.

    Attributes:
        id: The task's id, or a new one for what has none.
        queue: Where it came from.
        task: Registered name; None for what could not be decoded.
        args: Positional arguments.
        kwargs: Named arguments.
        priority: Of its message: the lane; None where it had none.
        headers: Of its message, those that count when it is published again.
        options: Celery's canvas around it (callbacks, chain, chord, group, parents), by `send_task`'s names.
        code: Error code.
        error: Error message.
        history: Attempts, oldest first, the last one included: `at`, `code`, `error`, `worker`.
        deliveries: How often the broker handed it out.
        raw: What could not be decoded, its start, as text; None for a task.
        raw_base64: The same as bytes, and more of them.
        raw_bytes: How many bytes it had in all.
        at: Seconds since the epoch.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    queue: str
    task: str | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    priority: int | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    code: str
    error: str
    history: list[dict[str, Any]] = field(default_factory=list)
    deliveries: int = 1
    raw: str | None = None
    raw_base64: str | None = None
    raw_bytes: int | None = None
    at: float = field(default_factory=time.time)

    @property
    def head(self) -> DeadLetterHead:
        """Return what lists show of the dead letter."""
        return DeadLetterHead(
            id=self.id,
            queue=self.queue,
            task=self.task,
            code=self.code,
            error=self.error[:SHOWN],
            at=self.at,
            priority=self.priority,
            deliveries=self.deliveries,
            attempts=len(self.history),
            requeueable=self.task is not None and self.raw is None,
        )


class DeadLetters:
    """The store of dead letters.

    Args:
        client: Client of the result store.
        ttl: Seconds a letter is kept.
    """

    def __init__(self, client: "Redis", *, ttl: int) -> None:
        self._client = client
        self._ttl = ttl
        self._add: Any = client.register_script(_ADD)
        self._remove: Any = client.register_script(_REMOVE)
        self._release: Any = client.register_script(_RELEASE)

    def add(self, letter: DeadLetter) -> None:
        """Stores a letter; one of the same id is replaced. Some letters past their time go."""
        head = letter.head
        self._add(keys=KEYS, args=[letter.id, strict_json(asdict(letter)), head.to_json(), repr(letter.at), head.kind])
        self.expire(EXPIRED_AT_ADD)

    def get(self, letter_id: str) -> DeadLetter | None:
        """The letter of that id."""
        stored: Any = self._client.hget(LETTERS, letter_id)
        return None if stored is None else _parsed(stored)

    def newest(self, limit: int = 100) -> Iterator[DeadLetter]:
        """Letters, newest first."""
        ids: Any = self._client.zrange(INDEX, 0, limit - 1, desc=True)
        for stored in self._client.hmget(LETTERS, ids) if ids else []:
            if stored is not None:
                yield _parsed(stored)

    def page(self, where: DeadLetterFilter, *, cursor: str | None = None, limit: int = 50) -> DeadLetterPage:
        """Heads of the letters that fit, newest first.

        It looks at `MOST_EXAMINED` letters at most, so a page may hold fewer than there are, none even; while it
        has a cursor there may be more.

        Raises:
            InvalidInput: The cursor is not one that a page gave.
        """
        position = min(Position.parse(cursor) if cursor else START, where.start)
        found: list[DeadLetterHead] = []
        for examined, head in enumerate(self._walk(position, where.since), start=1):
            if where.fits(head):
                found.append(head)
            if len(found) == limit or examined == MOST_EXAMINED:
                return DeadLetterPage(heads=found, cursor=head.position.cursor)
        return DeadLetterPage(heads=found, cursor=None)

    def count(self) -> int:
        """How many there are."""
        return int(self._client.zcard(INDEX))

    def counts(self) -> dict[tuple[str, str], int]:
        """How many there are by (queue, code); as many entries as there are such pairs."""
        return parse_counts(self._client.hgetall(COUNTS))

    def drop(self, letter_ids: Sequence[str]) -> int:
        """Removes letters for good; how many there were."""
        pairs = [part for letter_id in letter_ids for part in (letter_id, "")]
        return int(self._remove(keys=KEYS, args=pairs)) if pairs else 0

    def settle(self, letter: DeadLetter) -> None:
        """Removes a letter that was published again, unless a newer one has taken its place."""
        self._remove(keys=KEYS, args=[letter.id, repr(letter.at)])

    def expire(self, limit: int) -> int:
        """Removes letters past their time, the oldest first and at most `limit`; how many."""
        found: Any = self._client.zrange(INDEX, "-inf", time.time() - self._ttl, byscore=True, offset=0, num=limit)
        return self.drop([_text(letter_id) for letter_id in found])

    @contextmanager
    def claimed(self, letter_id: str) -> Iterator[None]:
        """For as long as the block nobody else may claim the letter.

        Raises:
            Conflict: Somebody else has claimed it.
        """
        key, token = CLAIM_PREFIX + letter_id, uuid.uuid4().hex
        if not self._client.set(key, token, nx=True, px=CLAIM_MS):
            raise Conflict(f"dead letter {letter_id!r} is being requeued by somebody else")
        try:
            yield
        finally:
            self._release(keys=[key], args=[token])

    def _walk(self, position: Position, since: float | None) -> Iterator[DeadLetterHead]:
        """Heads after the position, newest first, read in chunks."""
        while entries := self._after(position, "-inf" if since is None else since):
            stored: Any = self._client.hmget(HEADS, [entry.id for entry in entries])
            for entry, head in zip(entries, stored, strict=True):
                if head is not None:
                    yield DeadLetterHead.parse(entry.id.decode(), head)
            position = entries[-1]

    def _after(self, position: Position, bottom: float | str) -> list[Position]:
        """The next entries of the index; where many have the same time, those already seen are passed over."""
        offset = 0
        while True:
            rows: Any = self._client.zrange(
                INDEX, position.at, bottom, desc=True, byscore=True, offset=offset, num=CHUNK, withscores=True
            )
            found = [entry for name, at in rows if (entry := Position(at=at, id=name)) < position]
            if found or len(rows) < CHUNK:
                return found
            offset += CHUNK


def parse_counts(stored: Any) -> dict[tuple[str, str], int]:
    """The content of `COUNTS` by (queue, code)."""
    found = {}
    for name, count in stored.items():
        queue, _, code = _text(name).partition("\x1f")
        found[queue, code] = int(count)
    return found


def _parsed(stored: bytes | str) -> DeadLetter:
    """A stored letter; fields of later versions are ignored."""
    known = DeadLetter.__dataclass_fields__
    return DeadLetter(**{name: value for name, value in orjson.loads(stored).items() if name in known})


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
