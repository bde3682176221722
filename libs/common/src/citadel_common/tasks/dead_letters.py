"""Dead letters: tasks and messages that will not be tried again, kept with all that is needed to look and retry.

One hash holds the letters by id, one sorted set their time; both expire by the store's own limit.
"""

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from redis import Redis

LETTERS = "citadel:dead-letters"
INDEX = "citadel:dead-letters:by-time"


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One task or message put aside.

    Attributes:
        id: The task's id, or a new one for what has none.
        queue: Where it came from.
        task: Registered name; None for what could not be decoded.
        args: Positional arguments.
        kwargs: Named arguments.
        code: Error code.
        error: Error message.
        history: Earlier attempts, oldest first: `at`, `code`, `error`, `worker`.
        deliveries: How often the broker handed it out.
        raw: What could not be decoded, its start, as text.
        at: Seconds since the epoch.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    queue: str
    task: str | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    code: str
    error: str
    history: list[dict[str, Any]] = field(default_factory=list)
    deliveries: int = 1
    raw: str | None = None
    at: float = field(default_factory=time.time)


class DeadLetters:
    """The store of dead letters.

    Args:
        client: Client of the result store.
        ttl: Seconds a letter is kept.
    """

    def __init__(self, client: "Redis", *, ttl: int) -> None:
        self._client = client
        self._ttl = ttl

    def add(self, letter: DeadLetter) -> None:
        """Stores a letter; one of the same id is replaced. Letters past their time go."""
        expired = self._client.zrangebyscore(INDEX, "-inf", time.time() - self._ttl, start=0, num=1000)
        pipe = self._client.pipeline()
        pipe.hset(LETTERS, letter.id, _document(letter))
        pipe.zadd(INDEX, {letter.id: letter.at})
        if expired:
            pipe.hdel(LETTERS, *expired)
            pipe.zrem(INDEX, *expired)
        pipe.execute()

    def get(self, letter_id: str) -> DeadLetter | None:
        """The letter of that id."""
        stored = self._client.hget(LETTERS, letter_id)
        return None if stored is None else DeadLetter(**orjson.loads(stored))

    def newest(self, limit: int = 100) -> Iterator[DeadLetter]:
        """Letters, newest first."""
        ids: Any = self._client.zrange(INDEX, 0, limit - 1, desc=True)
        for stored in self._client.hmget(LETTERS, ids) if ids else []:
            if stored is not None:
                yield DeadLetter(**orjson.loads(stored))

    def count(self) -> int:
        """How many there are."""
        return int(self._client.zcard(INDEX))


def _document(letter: DeadLetter) -> bytes:
    """The letter as strict JSON; what that cannot say (lone surrogates, integers beyond 64 bits) is approximated."""
    content = asdict(letter)
    try:
        return orjson.dumps(content, default=str)
    except TypeError:
        return json.dumps(content, default=str, ensure_ascii=False).encode("utf-8", "replace")
