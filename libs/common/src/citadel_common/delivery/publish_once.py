"""Publishing once: the messages that follow from one event go to their queues together with a note of that event.

A process may be killed between any two commands, and whoever finishes its work would publish again. So messages are
collected while Celery makes them, and one script puts them on their lists, unless the event's note is there already.
The note is on the broker, because nothing else is in one step with the lists.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from redis import Redis

PREFIX = "citadel:published:"
"""Prefix of the keys of notes; each holds what its publisher wanted to know of the messages."""
KEPT = 24 * 3600
"""Seconds that a note is kept; whoever finishes the work of a dead process does so long before."""
Collected = list[tuple[str, bytes | str]]
"""Lists of the broker, each with an entry for it."""
_collected: ContextVar[Collected | None] = ContextVar("collected", default=None)
_PUBLISH = """
local before = redis.call('GET', KEYS[1])
if before then return before end
for i = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= 'list' then return redis.error_reply('WRONGTYPE of ' .. KEYS[i] .. ': ' .. kind) end
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[1])
for i = 2, #KEYS do redis.call('LPUSH', KEYS[i], ARGV[i + 1]) end
return false
"""
"""An error within a script undoes nothing, so the types of the keys are checked before anything is written."""


@contextmanager
def collecting() -> Iterator[Collected]:
    """Collect the messages that this thread publishes in the block, instead of publishing them."""
    found: Collected = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def collected() -> Collected | None:
    """Return where this thread collects what it publishes; None where it publishes."""
    return _collected.get()


class OncePublisher:
    """Publishes the messages of an event once, whoever tries and however often.

    Args:
        client: Client of the broker's Redis.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._script: Any = client.register_script(_PUBLISH)

    def publish(self, event: str, make: Callable[[], Any]) -> Any:
        """Publish the messages that `make` publishes, unless those of the event are published.

        Args:
            event: Name of the event, unique over all time.
            make: Publishes messages; returns what is noted of them, as JSON has it.

        Returns:
            What `make` returned when the messages were published, now or before.

        Raises:
            redis.RedisError: The broker does not answer; the messages are published or not.
        """
        note = PREFIX + event
        before: Any = self._client.get(note)
        if before is not None:
            return orjson.loads(before)
        with collecting() as found:
            made = make()
        names = [name for name, _ in found]
        entries = [entry for _, entry in found]
        before = self._script(keys=[note, *names], args=[KEPT, orjson.dumps(made), *entries])
        return made if before is None else orjson.loads(before)
