"""The record of messages that are taken and not yet done, with fewer round trips than kombu's own.

Kombu forgets each message that is done by itself. Here those of the last few milliseconds are forgotten together,
or along with the note of the next message. A worker killed in between leaves finished tasks to be delivered once
more, as one killed an instant before its acknowledgement always did.
"""

import time
from typing import Any

import structlog
from kombu.asynchronous import get_event_loop
from kombu.transport import redis, virtual
from redis.commands.core import Script

from citadel_common.delivery import serializer
from citadel_common.stores.redis import ERRORS

log = structlog.get_logger(__name__)
_NOTE = """
for i = 1, ARGV[1] do
  redis.call('ZREM', KEYS[2], ARGV[i + 1])
  redis.call('HDEL', KEYS[1], ARGV[i + 1])
end
local taken = ARGV[1] + 2
if ARGV[taken] then
  redis.call('ZADD', KEYS[2], ARGV[taken + 1], ARGV[taken])
  redis.call('HSET', KEYS[1], ARGV[taken], ARGV[taken + 2])
end
"""
"""Forgets messages that are done, and notes one that was taken: one command, which costs half of a pipeline."""
LONGEST_WAIT = 0.05
"""Seconds until a message that is done is forgotten."""


class HeldMessages(redis.QoS):  # type: ignore[misc]  # kombu publishes no types
    """Kombu's interface; all of it is called from the consumer's thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: list[str] = []
        self._timer_runs = False
        self._script: Any = Script(self.channel.client, _NOTE)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Notes a message that was taken, and forgets what is done."""
        info = message.delivery_info
        entry = serializer.dumps([message._raw, info["exchange"], info["routing_key"]])  # noqa: SLF001  (kombu's form)
        self._note(delivery_tag, time.time(), entry)
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Notes that a message is done."""
        self._done.append(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)
        loop = get_event_loop()
        if loop is None:
            self._forget_done()
        elif not self._timer_runs:
            self._timer_runs = True
            loop.call_later(LONGEST_WAIT, self._on_timer)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Gives back what is not done, when the channel closes."""
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
