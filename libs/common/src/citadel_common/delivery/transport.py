"""Kombu's Redis transport, hardened for workers: no message is ever between two places, and none ends the consumer.

A channel with the transport option `holdings` is a worker's: it takes the messages of the worker's queue as
`delivery.taking` says. Other queues, and channels of other processes, are kombu's own.
"""

import functools
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, _transport_cache, redis
from redis import ResponseError
from redis.exceptions import OutOfMemoryError

from citadel_common.delivery import serializer, tracked_messages
from citadel_common.delivery.bindings import Binding, binding_of
from citadel_common.delivery.held_messages import HeldMessages, Holdings
from citadel_common.delivery.publish_once import collected
from citadel_common.delivery.taking import Listener, Taker


class _WorkerChannel(redis.Channel):  # type: ignore[misc]  # kombu publishes no types
    """A channel that can take a worker's messages.

    Transport options, beside kombu's:
        holdings: What the worker holds, a `Holdings`.
        on_malformed: Called with the queue, the raw entry and the problem of an entry that is not a message.
        on_wrong_key: Called with a key that stands where a queue's list belongs, and its type.
    """

    _commands: Any = None
    taker: Taker | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._holdings: Holdings | None = self.option("holdings")
        if self._holdings is not None:
            self.QoS = functools.partial(HeldMessages, holdings=self._holdings)

    def option(self, name: str) -> Any:
        """Return a transport option, or None."""
        return self.connection.client.transport_options.get(name)

    def on_wrong_key(self, key: str) -> None:
        """Report a key of a wrong type."""
        handler = self.option("on_wrong_key")
        if handler is not None:
            with self.conn_or_acquire() as client:
                handler(key, client.type(key).decode())

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from a queue; the worker's own one is taken from."""
        if self._holdings is not None and queue == self._holdings.queue and not no_ack:
            self.taker = Taker(self, self._holdings)
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        cancelled = super()._basic_cancel(consumer_tag)
        if self.taker is not None and self.taker.queue not in self._active_queues:
            taker, self.taker = self.taker, None
            taker.close()
        return cancelled

    @property
    def active_queues(self) -> list[str]:
        """Return the queues that kombu itself consumes from."""
        active: list[str] = super().active_queues
        return [queue for queue in active if self.taker is None or queue != self.taker.queue]

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        """Publish a message, or collect it; a tracked one is published together with its marks."""
        names, found = tracked_messages.names_of(message.get("headers")), collected()
        if not names and found is None:
            super()._put(queue, message, **options)
            return
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        if found is not None:
            found.append((key, serializer.dumps(message)))
            return
        with self.conn_or_acquire() as client, client.pipeline(transaction=True) as pipe:
            pipe.lpush(key, serializer.dumps(message))
            tracked_messages.mark(pipe, names, message["properties"]["delivery_tag"])
            pipe.execute()

    def _queue_bind(self, *args: Any) -> None:
        """Note a binding; a worker needs none to take messages, and a full Redis refuses the note."""
        try:
            super()._queue_bind(*args)
        except OutOfMemoryError:
            if self._holdings is None:
                raise

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return the client of the connection pool; kombu builds one per command, at the price of several."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._commands is None or self._commands.connection_pool is not self.pool:
            self._commands = super()._create_client()
        return self._commands

    def _size(self, queue: str) -> int:
        """Return the length of a queue as AMQP's declaration tells it, 0 if a key is of a wrong type."""
        try:
            length: int = super()._size(queue)
        except ResponseError:
            return 0
        return length

    def get_table(self, exchange: str) -> list[Binding]:
        """Return the bindings of an exchange, those of clients with other separators included."""
        with self.conn_or_acquire() as client:
            stored = client.smembers(self.keyprefix_queue % exchange)
        return [found for member in stored if (found := binding_of(member.decode(), self.sep)) is not None]


class _WorkerSentinelChannel(_WorkerChannel, redis.SentinelChannel):  # type: ignore[misc]
    """The same channel for Redis behind Sentinel."""


class _Poller(redis.MultiChannelPoller):  # type: ignore[misc]
    """Kombu's poller, which also lets channels take messages and polls for their listeners."""

    def on_poll_start(self) -> None:
        """Start what is to be polled for."""
        for channel in list(self._channels):
            if channel.taker is not None:
                channel.taker.on_tick(self)
        super().on_poll_start()

    def on_readable(self, fileno: int) -> Any:
        """Read what has come on a socket."""
        _, kind = self._fd_to_chan.get(fileno, (None, None))
        return kind.on_readable() if isinstance(kind, Listener) else super().on_readable(fileno)


class Transport(redis.Transport):  # type: ignore[misc]
    """`redis://` and `rediss://`."""

    Channel = _WorkerChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = _Poller()


class SentinelTransport(redis.SentinelTransport):  # type: ignore[misc]
    """`sentinel://`."""

    Channel = _WorkerSentinelChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = _Poller()


def install() -> None:
    """Register these as the process's transports, and read kombu's envelopes with orjson."""
    redis.loads = serializer.loads
    transports = {
        "redis": f"{__name__}:Transport",
        "rediss": f"{__name__}:Transport",
        "sentinel": f"{__name__}:SentinelTransport",
    }
    TRANSPORT_ALIASES.update(transports)
    for alias in transports:  # another Celery app of the process may have connected before
        _transport_cache.pop(alias, None)
