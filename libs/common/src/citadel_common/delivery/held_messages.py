"""Messages that a worker has taken and not acknowledged yet, kept with fewer round trips than kombu needs.

Kombu removes each acknowledged message with a command of its own. Here those of the last few milliseconds are removed
together, or with the command that adds the next message. A worker killed in between leaves finished tasks to be
delivered once more, which any at-least-once queue may do.
"""

from typing import Any

import structlog
from kombu.asynchronous import get_event_loop
from kombu.transport import redis, virtual
from redis.commands.core import Script

from citadel_common.delivery import serializer, tracked_messages
from citadel_common.stores.redis import ERRORS

log = structlog.get_logger(__name__)
_NOTE = """
for i = 1, ARGV[1] do
  redis.call('ZREM', KEYS[2], ARGV[i + 1])
  redis.call('HDEL', KEYS[1], ARGV[i + 1])
end
local taken = ARGV[1] + 2
if ARGV[taken] then
  redis.call('ZADD', KEYS[2], redis.call('TIME')[1], ARGV[taken])
  redis.call('HSET', KEYS[1], ARGV[taken], ARGV[taken + 1])
end
"""
"""Removes acknowledged messages and adds one that was taken. One command costs half of what a pipeline costs."""
LONGEST_WAIT = 0.05
"""Most seconds until an acknowledged message is removed."""


class HeldMessages(redis.QoS):  # type: ignore[misc]  # kombu publishes no types
    """Kombu's `QoS` of one channel. Only the consumer's thread calls it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: list[str] = []
        self._marks: list[tuple[str, str]] = []
        self._timer_runs = False
        self._script: Any = Script(self.channel.client, _NOTE)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Add a message that was taken."""
        info = message.delivery_info
        entry = serializer.dumps([message._raw, info["exchange"], info["routing_key"]])  # noqa: SLF001  (kombu's form)
        self._note(delivery_tag, entry)
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message; it is removed within `LONGEST_WAIT`."""
        self._done.append(delivery_tag)
        names = tracked_messages.names_of(getattr(self._delivered.get(delivery_tag), "headers", None))
        self._marks += [(name, delivery_tag) for name in names]
        virtual.QoS.ack(self, delivery_tag)
        loop = get_event_loop()
        if loop is None:
            self._forget_done()
        elif not self._timer_runs:
            self._timer_runs = True
            loop.call_later(LONGEST_WAIT, self._on_timer)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back what is not acknowledged, when the channel closes."""
        self._forget_done()
        super().restore_unacked_once(stderr)

    def _on_timer(self) -> None:
        self._timer_runs = False
        self._forget_done()

    def _forget_done(self) -> None:
        if not self._done:
            return
        try:
            self._note()
        except ERRORS as error:
            log.warning("acknowledgements_delayed", messages=len(self._done), error=type(error).__name__)

    def _note(self, *taken: Any) -> None:
        with self.channel.conn_or_acquire() as client:
            self._script(
                keys=[self.unacked_key, self.unacked_index_key],
                args=[len(self._done), *self._done, *taken],
                client=client,
            )
            self._done.clear()
            if self._marks:  # after their messages: a message without its mark would be taken to be lost
                tracked_messages.release(client, self._marks)
                self._marks.clear()
