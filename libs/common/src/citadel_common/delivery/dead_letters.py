"""Dead letters: tasks and messages that will not be tried again, kept with all that an operator needs.

The results store has a hash of the dead letters, a hash of their heads (so that lists and filters read no arguments),
a sorted set of their times, and a hash of their number by queue and code. One script changes all four. Lists walk the
sorted set from the newest, a bounded number of heads at a time.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from citadel_common.delivery.dead_letter_index import (
    SHOWN,
    START,
    DeadLetterFilter,
    DeadLetterHead,
    DeadLetterPage,
    Position,
    strict_json,
)
from citadel_common.delivery.server_clock import ServerClock
from citadel_common.errors import CitadelError, Conflict
from citadel_common.stores.token_lock import TokenLock
from citadel_common.text import printable

if TYPE_CHECKING:
    from redis import Redis

log = structlog.get_logger(__name__)
DEAD_LETTERS = "citadel:dead-letters"
HEADS = "citadel:dead-letters:heads"
INDEX = "citadel:dead-letters:by-time"
COUNTS = "citadel:dead-letters:counts"
CLAIM_PREFIX = "citadel:dead-letters:claim:"
KEYS = (DEAD_LETTERS, HEADS, INDEX, COUNTS)
HISTORY_HEADER = "citadel_history"
"""Message header: the earlier attempts, see `DeadLetter.history`."""
HISTORY_LENGTH = 10
EXPIRED_AT_ADD = 100
MOST_KEPT = 10_000
CHUNK = 500
LOGGED = 200
"""Characters of an id or a name in a log line."""
MOST_EXAMINED = 2000
"""Most heads that one page examines."""
CLAIM_TTL = 60.0
"""Seconds after which the claim of an operator whose process died lapses."""

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
if KEYS[5] then
  redis.call('SET', KEYS[5], ARGV[6])
  if ARGV[7] ~= '0' then redis.call('EXPIRE', KEYS[5], ARGV[7]) end
  redis.call('PUBLISH', KEYS[5], ARGV[6])
end
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


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A task or message that will not be tried again.

    Attributes:
        id: The task's id; a new one for a message without an id.
        queue: Queue that it came from.
        task: Registered name; None for what could not be decoded.
        args: Positional arguments.
        kwargs: Named arguments.
        priority: The message's priority, which is its lane; None if it had none.
        headers: Those headers of the message that it is published with again.
        options: Celery's canvas around it (callbacks, chain, chord, group, parents), by `send_task`'s names.
        code: Error code.
        error: Error message.
        failure: The error as data; empty in letters of older versions.
        history: Attempts, oldest first, the last one included: `at`, `code`, `error`, `worker`, and what else is known.
        deliveries: Number of times that the broker handed it out.
        raw: The start of a message that could not be decoded, as text; None for a task.
        raw_base64: More of that message, as bytes in base64.
        raw_bytes: Length of that message in bytes.
        at: Seconds since the epoch by the result store's clock; 0 until it is stored.
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
    failure: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    deliveries: int = 1
    raw: str | None = None
    raw_base64: str | None = None
    raw_bytes: int | None = None
    at: float = 0.0

    @property
    def in_logs(self) -> dict[str, str | None]:
        """Return id and task for log lines: a foreign message may hold texts of any length."""
        task = None if self.task is None else printable(self.task, LOGGED)
        return {"id": printable(self.id, LOGGED), "task": task}

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


@dataclass(frozen=True, kw_only=True)
class FailedResult:
    """The result of a task that becomes a dead letter.

    Attributes:
        key: Where the results store keeps it; also the channel on which it is announced.
        body: As Celery encodes it.
        seconds: How long it is kept; 0 for ever.
    """

    key: str | bytes
    body: str | bytes
    seconds: int


def failure_of(error: CitadelError) -> dict[str, Any]:
    """Return the fields of a letter that tell its error."""
    return {"code": error.code, "error": error.message, "failure": error.data.model_dump()}


class DeadLetters:
    """The store of dead letters.

    Args:
        client: Client of the result store.
        ttl: Seconds that a dead letter is kept.
        most: Number that is kept; the oldest ones go.
    """

    def __init__(self, client: "Redis", *, ttl: int, most: int = MOST_KEPT) -> None:
        self._most = most
        self._client = client
        self._ttl = ttl
        self._clock = ServerClock(client)
        self._add: Any = client.register_script(_ADD)
        self._remove: Any = client.register_script(_REMOVE)

    def add(self, dead_letter: DeadLetter, result: FailedResult | None = None) -> None:
        """Store a dead letter, in place of one with the same id, and remove some that are past their time or too many.

        The result of its task is stored with it: whoever sees the dead letter and requeues it finds that result, and
        none comes later that the task run anew would seem to have.
        """
        dead_letter = dead_letter if dead_letter.at else replace(dead_letter, at=self._clock.now())
        head = dead_letter.head
        args = [dead_letter.id, strict_json(asdict(dead_letter)), head.to_json(), repr(dead_letter.at), head.kind]
        if result is None:
            self._add(keys=KEYS, args=args)
        else:
            self._add(keys=[*KEYS, result.key], args=[*args, result.body, result.seconds])
        self.expire(EXPIRED_AT_ADD)
        if dropped := self._drop_oldest(EXPIRED_AT_ADD):
            log.warning("dead_letters_dropped", dropped=dropped, most=self._most)

    def get(self, dead_letter_id: str) -> DeadLetter | None:
        """Return the dead letter of that id."""
        stored: Any = self._client.hget(DEAD_LETTERS, dead_letter_id)
        return None if stored is None else _parsed(stored)

    def newest(self, limit: int = 100) -> Iterator[DeadLetter]:
        """Yield dead letters, newest first."""
        ids: Any = self._client.zrange(INDEX, 0, limit - 1, desc=True)
        for stored in self._client.hmget(DEAD_LETTERS, ids) if ids else []:
            if stored is not None:
                yield _parsed(stored)

    def page(self, where: DeadLetterFilter, *, cursor: str | None = None, limit: int = 50) -> DeadLetterPage:
        """Return the heads of the dead letters that fit, newest first.

        At most `MOST_EXAMINED` heads are examined, so a page may hold fewer than `limit`, or none. While a page has a
        cursor there may be more.

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
        """Return the number of dead letters."""
        return int(self._client.zcard(INDEX))

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of dead letters by (queue, code)."""
        return parse_counts(self._client.hgetall(COUNTS))

    def drop(self, dead_letter_ids: Sequence[str]) -> int:
        """Remove dead letters; return how many there were."""
        pairs = [part for dead_letter_id in dead_letter_ids for part in (dead_letter_id, "")]
        return int(self._remove(keys=KEYS, args=pairs)) if pairs else 0

    def settle(self, dead_letter: DeadLetter) -> None:
        """Remove a dead letter that was published again, unless a newer one has taken its place."""
        self._remove(keys=KEYS, args=[dead_letter.id, repr(dead_letter.at)])

    def expire(self, limit: int) -> int:
        """Remove at most `limit` dead letters past their time, oldest first; return how many."""
        oldest = self._clock.now() - self._ttl
        found: Any = self._client.zrange(INDEX, "-inf", oldest, byscore=True, offset=0, num=limit)
        return self.drop([_text(dead_letter_id) for dead_letter_id in found])

    def _drop_oldest(self, limit: int) -> int:
        excess = min(limit, self.count() - self._most)
        found: Any = self._client.zrange(INDEX, 0, excess - 1) if excess > 0 else []
        return self.drop([_text(dead_letter_id) for dead_letter_id in found])

    @contextmanager
    def claimed(self, dead_letter_id: str) -> Iterator[None]:
        """Hold the claim on a dead letter for as long as the block runs.

        Raises:
            Conflict: Another operator has claimed it.
        """
        claim = TokenLock(self._client, CLAIM_PREFIX + dead_letter_id, uuid.uuid4().hex, ttl=CLAIM_TTL)
        if not claim.take():
            raise Conflict(f"dead letter {dead_letter_id!r} is being requeued by somebody else")
        try:
            yield
        finally:
            claim.release()

    def _walk(self, position: Position, since: float | None) -> Iterator[DeadLetterHead]:
        """Yield the heads after the position, newest first; they are read in chunks."""
        while entries := self._after(position, "-inf" if since is None else since):
            stored: Any = self._client.hmget(HEADS, [entry.id for entry in entries])
            for entry, head in zip(entries, stored, strict=True):
                if head is not None:
                    yield DeadLetterHead.parse(entry.id.decode(), head)
            position = entries[-1]

    def _after(self, position: Position, bottom: float | str) -> list[Position]:
        """Return the next entries of the index; among entries of the same time, those already seen are skipped."""
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
    """Return the content of `COUNTS` by (queue, code)."""
    found = {}
    for name, count in stored.items():
        queue, _, code = _text(name).partition("\x1f")
        found[queue, code] = int(count)
    return found


def _parsed(stored: bytes | str) -> DeadLetter:
    """Return the dead letter of a stored form; fields of later versions are ignored."""
    known = DeadLetter.__dataclass_fields__
    return DeadLetter(**{name: value for name, value in orjson.loads(stored).items() if name in known})


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
