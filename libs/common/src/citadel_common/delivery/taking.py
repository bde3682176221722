"""How a worker takes messages: by one script while any wait, and by blocked moves, one per lane, while none do.

A worker with room looks with the script `take`. It asks again when it has room for a lane on which it does not listen.
Then it listens: on a connection of its own for each lane, Redis moves the next message into the worker's inbox as soon
as there is one. The script takes it from there. Of several waiting workers Redis serves the one that waits longest.
"""

import time
from typing import TYPE_CHECKING, Any

import structlog
from kombu.utils.eventio import READ, poll
from redis import ConnectionError as RedisConnectionError
from redis import RedisError, ResponseError
from redis.exceptions import OutOfMemoryError

from citadel_common.delivery import entries
from citadel_common.delivery.held_messages import Holdings
from citadel_common.delivery.worker_messages import Taking, WorkerLane, WorkerMessages

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)
LONGEST_BLOCK = 5.0
"""Seconds after which Redis ends a blocked move. So those of a worker that was cut off end by themselves."""
OVERDUE = 10.0
"""Seconds beyond that after which a connection without an answer counts as lost."""
WRONG_KEY_PAUSE = 5.0
"""Seconds for which a key of a wrong type is left out before it is tried again."""
FULL_PAUSE = 1.0
"""Seconds between looks while Redis is full and refuses blocked moves."""
PUBLISHED_TAG = "published_tag"
"""Property of a taken message that holds the delivery tag from its publisher."""
COMPARE_EVERY = 5.0
"""Seconds between comparisons of what Redis has as held with what the process has."""


class Listener:
    """One connection on which Redis moves the next message of a lane into the worker's inbox.

    Kombu's poller takes it for a client: it has the attributes `connection` and `connection_pool`.
    """

    def __init__(self, channel: Any, lane: WorkerLane) -> None:
        self._channel = channel
        self._lane = lane
        self.connection: Any = None
        self.connection_pool = channel.async_pool
        self.is_waiting = self.has_moved = self.found_nothing = False
        self.paused_until = 0.0
        self._since = 0.0

    def start(self, poller: Any) -> None:
        """Send the blocked move, and have its answer polled for."""
        if not poller._client_registered(self._channel, self, self):  # noqa: SLF001  (kombu's own protocol)
            poller._register(self._channel, self, self)  # noqa: SLF001
        self._send()

    def _send(self) -> None:
        keys = (self._lane.key, self._lane.inbox)
        self.connection.send_command("BLMOVE", *keys, "RIGHT", "LEFT", LONGEST_BLOCK)
        self.is_waiting, self.found_nothing, self._since = True, False, time.monotonic()

    def on_readable(self) -> None:
        """Read the answer.

        Raises:
            ResponseError: Redis refuses the command for good, as a replica does.
        """
        self.is_waiting = False
        try:
            self.has_moved = self.connection.read_response() is not None
            self.found_nothing = not self.has_moved
        except OutOfMemoryError:
            self.paused_until = time.monotonic() + FULL_PAUSE
        except ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            self.paused_until = time.monotonic() + WRONG_KEY_PAUSE
            self._channel.on_wrong_key(self._lane.key)
        except self._channel.connection_errors:
            self.connection.disconnect()
            raise

    @property
    def is_overdue(self) -> bool:
        """True if Redis should have answered long ago."""
        if not self.is_waiting or time.monotonic() - self._since < LONGEST_BLOCK + OVERDUE:
            return False
        return not _is_readable(self.connection._sock)  # noqa: SLF001

    def close(self) -> None:
        """Close the connection, which ends the blocked move."""
        self.is_waiting = False
        if self.connection is not None:
            self.connection.disconnect()


def _is_readable(sock: Any) -> bool:
    """Return whether an answer is there that this process was too busy to read."""
    poller = poll()
    try:
        poller.register(sock, READ)
        return bool(poller.poll(0))
    finally:
        poller.close()


class Taker:
    """Takes messages for one channel of a worker, on the consumer's thread."""

    def __init__(self, channel: Any, holdings: Holdings) -> None:
        self.queue = holdings.queue
        self._channel = channel
        self._holdings = holdings
        self._messages = WorkerMessages(channel._create_client(), holdings.worker_id, holdings.queue)  # noqa: SLF001
        self._listeners = [(lane, Listener(channel, lane)) for lane in self._messages.lanes]
        self._compare_at = 0.0
        holdings.messages = self._messages

    def on_tick(self, poller: Any) -> None:
        """Do what is due; kombu's event loop calls this before it waits for events.

        Raises:
            RedisConnectionError: Redis does not answer on a connection.
        """
        if any(listener.is_overdue for _, listener in self._listeners):
            raise RedisConnectionError("no answer to a blocked move")
        if time.monotonic() >= self._compare_at:
            self._holdings.compare()
            self._compare_at = time.monotonic() + COMPARE_EVERY
        moved = any(listener.has_moved for _, listener in self._listeners)
        if moved or any(not listener.found_nothing for listener in self._idle_listeners()):
            self._take()
        for listener in self._idle_listeners():
            listener.start(poller)

    def _idle_listeners(self) -> list[Listener]:
        """Return the listeners of lanes that there is room for, which do not wait."""
        if not self._channel.qos.can_consume():
            return []
        now = time.monotonic()
        idle = [
            (lane, listener)
            for lane, listener in self._listeners
            if not listener.is_waiting and now >= listener.paused_until
        ]
        batches_wait = idle and self._holdings.batch_room > 0
        return [listener for lane, listener in idle if batches_wait or not lane.is_batch]

    def _take(self) -> None:
        """Take messages and deliver them."""
        for _, listener in self._listeners:
            listener.has_moved = False
        term, taking = self._look()
        if not taking.is_registered:
            self._holdings.announce()
            term, taking = self._look()
        for key in taking.wrong_keys:
            self._leave_out(key)
        for tag, entry in taking.messages:
            self._holdings.taken(tag, term)
            self._deliver(tag, entry)

    def _look(self) -> tuple[int | None, Taking]:
        """Return the term of the lease before the taking, and the taking."""
        holdings = self._holdings
        term, done = holdings.lease.term, len(holdings.done)
        limits = {"room": self._channel.qos.room, "batch_room": holdings.batch_room, "peers": holdings.peers}
        taking = self._messages.take(**limits, acknowledged=holdings.done)
        acknowledged = holdings.done[:done]
        del holdings.done[:done]
        holdings.release_marks(acknowledged)
        return term, taking

    def _leave_out(self, key: str) -> None:
        for lane, listener in self._listeners:
            if key in (lane.key, lane.inbox) and time.monotonic() >= listener.paused_until:
                listener.paused_until = time.monotonic() + WRONG_KEY_PAUSE
                self._channel.on_wrong_key(key)

    def _deliver(self, tag: str, entry: bytes) -> None:
        """Hand a message to its consumer; whatever error it raises on its way, it must not end the worker.

        Raises:
            RedisError: The store is to blame. The message is given back when the connection is open again.
        """
        try:
            message = entries.read(entry)
            # Publishers may give one tag twice; what is held must have names of its own.
            self._holdings.track(tag, message)
            properties = message["properties"]
            properties[PUBLISHED_TAG], properties["delivery_tag"] = properties["delivery_tag"], tag
            self._channel.connection._deliver(message, self.queue)  # noqa: SLF001
        except entries.MalformedEntry as error:
            self._refuse(tag, entry, str(error))
        except KeyError as error:  # one of kombu's connection errors, but here it is the message's
            self._refuse(tag, entry, f"KeyError: {error}")
        except (RedisError, *self._channel.connection_errors):
            raise
        except Exception as error:  # noqa: BLE001
            self._refuse(tag, entry, f"{type(error).__name__}: {error}")

    def _refuse(self, tag: str, entry: bytes, problem: str) -> None:
        handler: Callable[[str, bytes, str], None] = self._channel.option("on_malformed")
        handler(self.queue, entry, problem)
        self._channel.qos.ack(tag)

    def close(self) -> None:
        """Stop listening; what has been moved meanwhile goes back to its lane."""
        for _, listener in self._listeners:
            listener.close()
        if self._holdings.stopping():
            self._messages.empty_inboxes()
