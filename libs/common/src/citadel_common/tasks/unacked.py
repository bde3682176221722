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

from citadel_common.redis import ERRORS
from citadel_common.tasks import serializer

log = structlog.get_logger(__name__)
LONGEST_WAIT = 0.01
"""Seconds until a message that is done is forgotten."""


class UnackedMessages(redis.QoS):  # type: ignore[misc]  # kombu publishes no types
    """Kombu's interface; all of it is called from the consumer's thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._done: list[str] = []
        self._timer_runs = False

    def append(self, message: Any, delivery_tag: str) -> None:
        """Notes a message that was taken, and forgets what is done."""
        info = message.delivery_info
        entry = serializer.dumps([message._raw, info["exchange"], info["routing_key"]])  # noqa: SLF001  (kombu's form)
        with self.pipe_or_acquire() as pipe:
            pipe.zadd(self.unacked_index_key, {delivery_tag: time.time()})
            pipe.hset(self.unacked_key, delivery_tag, entry)
            self._send(pipe)
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
            with self.pipe_or_acquire() as pipe:
                self._send(pipe)
        except ERRORS as error:
            log.warning("acknowledgements_delayed", messages=len(self._done), error=type(error).__name__)

    def _send(self, pipe: Any) -> None:
        if self._done:
            pipe.zrem(self.unacked_index_key, *self._done)
            pipe.hdel(self.unacked_key, *self._done)
        pipe.execute()
        self._done.clear()
