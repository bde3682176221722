"""Kombu's Redis transport, hardened: a malformed list entry becomes a dead letter instead of ending the consumer."""

import base64
import binascii
import itertools
import time
from collections.abc import Callable
from queue import Empty
from typing import Any, TypeGuard

from kombu.transport import TRANSPORT_ALIASES, redis
from redis import RedisError, ResponseError

from citadel_common.delivery import serializer, tracked_messages
from citadel_common.delivery.dead_letters import HISTORY_HEADER, HISTORY_LENGTH
from citadel_common.delivery.held_messages import HeldMessages
from citadel_common.timestamps import utc_now
from citadel_contracts import Lane

MalformedHandler = Callable[[str, bytes, str], None]
"""Called with the queue, the raw entry and the problem."""
WrongKeyHandler = Callable[[str, str], None]
"""Called with a key that stands where a queue's list belongs, and its type."""
WRONG_KEY_PAUSE = 5.0
"""Seconds for which a key of a wrong type is left out before it is tried again."""
SHORT_LOOK = 0.02
"""Seconds of one BRPOP that leaves the batch lane out; by then that lane may have room again."""
_ROUTE = ("exchange", "routing_key")
ID_LIMIT = 255
"""Most characters in a task's id."""


def problem_of(entry: bytes) -> str | None:
    """Return why kombu could not read a list entry, or None if it can."""
    try:
        message = serializer.loads(entry)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if not isinstance(message, dict):
        return "not a JSON object"
    properties = message.get("properties")
    if not isinstance(properties, dict) or not isinstance(message.get("headers", {}), dict):
        return "properties or headers are missing"
    return _property_problem(properties) or _body_problem(message.get("body"), properties.get("body_encoding"))


def _property_problem(properties: dict[str, Any]) -> str | None:
    """Return what kombu would stumble over when it takes the message, or gives it back."""
    delivery, priority = properties.get("delivery_info"), properties.get("priority")
    if not isinstance(delivery, dict) or not all(_is_name(delivery.get(name)) for name in _ROUTE):
        return "properties.delivery_info is missing"
    if not _is_name(properties.get("delivery_tag")):
        return "properties.delivery_tag is missing"
    # Another type would end the consumer, and the worker that gets the message next, and so on.
    is_number = isinstance(priority, int) and not isinstance(priority, bool)
    return None if priority is None or is_number else "properties.priority is not a whole number"


def _is_name(value: object) -> bool:
    """Return whether Redis can have a key or a field of that name: a text without lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def task_id_of(entry: bytes) -> str | None:
    """Return the task id that a malformed entry names, or None."""
    try:
        message = serializer.loads(entry)
    except (ValueError, RecursionError):
        return None
    headers = message.get("headers") if isinstance(message, dict) else None
    task_id = headers.get("id") if isinstance(headers, dict) else None
    return task_id if is_task_id(task_id) else None


def is_task_id(value: object) -> TypeGuard[str]:
    """Return whether the stores can keep a task by this id."""
    return isinstance(value, str) and 0 < len(value) <= ID_LIMIT and value.isprintable()


def _body_problem(body: Any, encoding: Any) -> str | None:
    if not isinstance(body, str):
        return "body is not a string"
    if encoding not in (None, "base64"):
        return f"body_encoding {encoding!r} is unknown"
    if encoding == "base64":
        try:
            base64.b64decode(body)
        except (binascii.Error, ValueError) as error:
            return f"body is not base64: {error}"
    return None


class _CheckedChannel(redis.Channel):  # type: ignore[misc]  # kombu publishes no types
    """A channel that hands malformed entries to the transport option `on_malformed`, and bounds the batch lane.

    A lane whose key is of a wrong type is left out for a while, so that the others go on.

    While it holds `most_batch` messages of the batch lane (another option), it takes no more of them. The rest of
    its prefetch is for the other lanes, so that their latency does not depend on the number of queued batches.
    """

    QoS = HeldMessages
    _commands: Any = None
    _popped: tuple[bytes, bytes] | None = None
    _wrong_steps: frozenset[int] = frozenset()
    _wrong_until = 0.0

    def _get_client(self) -> Any:
        handler: MalformedHandler | None = self.connection.client.transport_options.get("on_malformed")
        base = super()._get_client()
        return base if handler is None else _checked_client(base, handler, self)

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        """Publish a message; a tracked one together with its marks."""
        names = tracked_messages.names_of(message.get("headers"))
        if not names:
            super()._put(queue, message, **options)
            return
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        with self.conn_or_acquire() as client, client.pipeline(transaction=True) as pipe:
            pipe.lpush(key, serializer.dumps(message))
            tracked_messages.mark(pipe, names, message["properties"]["delivery_tag"])
            pipe.execute()

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return the client of the connection pool; kombu builds one per command, at the price of several."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._commands is None or self._commands.connection_pool is not self.pool:
            self._commands = super()._create_client()
        return self._commands

    def _brpop_start(self, timeout: float | None = None) -> None:
        all_steps: list[int] = self.priority_steps  # type: ignore[has-type]  # kombu publishes no types
        steps = self._usable_steps(all_steps)
        most: int | None = self.connection.client.transport_options.get("most_batch")
        if most is not None and self._held_in_batch_lane() >= most:
            steps, timeout = [step for step in steps if step < Lane.BATCH], SHORT_LOOK
        if not steps:
            return
        self.priority_steps = steps
        try:
            super()._brpop_start(timeout)
        finally:
            self.priority_steps = all_steps

    def _usable_steps(self, steps: list[int]) -> list[int]:
        if self._wrong_steps and time.monotonic() >= self._wrong_until:
            self._wrong_steps = frozenset()
        return [step for step in steps if step not in self._wrong_steps]

    def _brpop_read(self, **options: Any) -> Any:
        """Take a message; whatever error it raises on its way to the task, it must not end the worker."""
        self._popped = None
        try:
            return super()._brpop_read(**options)
        except (Empty, *self.connection_errors):
            raise
        except RedisError:
            if self._popped is not None:
                self._give_back(*self._popped)
                raise
            if not self._leave_out_wrong_keys():
                raise
        except Exception as error:
            if self._popped is None:
                raise
            self._refuse(*self._popped, error)
        raise Empty

    def _give_back(self, key: bytes, entry: bytes) -> None:
        """Put an entry back where it was: the store is to blame."""
        with self.conn_or_acquire() as client:
            client.rpush(key, entry)

    def _refuse(self, key: bytes, entry: bytes, error: Exception) -> None:
        """Hand over an entry that kombu has stumbled over, which may have noted it as held before."""
        handler: MalformedHandler = self.connection.client.transport_options["on_malformed"]
        handler(self._queue_of(key), entry, f"{type(error).__name__}: {error}")
        tag = serializer.loads(entry)["properties"]["delivery_tag"]
        if tag in self.qos._delivered:  # noqa: SLF001
            self.basic_ack(tag)

    def _leave_out_wrong_keys(self) -> bool:
        """Return whether a lane's key is of a wrong type; such lanes are left out of the next looks."""
        handler: WrongKeyHandler = self.connection.client.transport_options.get("on_wrong_key", lambda *_: None)
        wrong = set()
        with self.conn_or_acquire() as client:
            for step, queue in itertools.product(self.priority_steps, self.active_queues):
                key = self._q_for_pri(queue, step)
                kind = client.type(key).decode()
                if kind not in {"list", "none"}:
                    handler(key, kind)
                    wrong.add(step)
        self._wrong_steps, self._wrong_until = frozenset(wrong), time.monotonic() + WRONG_KEY_PAUSE
        return bool(wrong)

    def _queue_of(self, key: bytes | str) -> str:
        name = key.decode() if isinstance(key, bytes) else key
        return name.rsplit(self.sep, 1)[0]

    def _size(self, queue: str) -> int:
        """Return the length of a queue as AMQP's declaration tells it, 0 if a key is of a wrong type."""
        try:
            length: int = super()._size(queue)
        except ResponseError:
            return 0
        return length

    def _do_restore_message(self, payload: Any, *args: Any, **kwargs: Any) -> None:
        """Give a message back; the option `dead_holder` names the worker that died with it."""
        holder: str | None = self.connection.client.transport_options.get("dead_holder")
        if holder is not None:
            _note_death(payload, holder)
        super()._do_restore_message(payload, *args, **kwargs)

    def _held_in_batch_lane(self) -> int:
        qos = self.qos  # kombu has no public view of what is unacked; acked tags leave `_delivered` later
        held = [message for tag, message in list(qos._delivered.items()) if tag not in qos._dirty]  # noqa: SLF001
        return sum((message.properties.get("priority") or 0) >= Lane.BATCH for message in held)


class _CheckedSentinelChannel(_CheckedChannel, redis.SentinelChannel):  # type: ignore[misc]
    """The same channel for Redis behind Sentinel."""


def _note_death(payload: Any, holder: str) -> None:
    """Add a worker's death to the history in a task's headers."""
    headers = payload.get("headers") if isinstance(payload, dict) else None
    if not isinstance(headers, dict):
        return
    earlier = headers.get(HISTORY_HEADER)
    death = {"at": utc_now(), "code": "worker_lost", "error": "the worker died with it", "worker": holder}
    headers[HISTORY_HEADER] = [*(earlier if isinstance(earlier, list) else []), death][-HISTORY_LENGTH:]


def _checked_client(base: Any, handler: MalformedHandler, channel: _CheckedChannel) -> Any:
    def parse_response(self: Any, connection: Any, command: str, **options: Any) -> Any:
        reply = base.parse_response(self, connection, command, **options)
        if command != "BRPOP" or not reply:
            return reply
        key, entry = reply
        problem = problem_of(entry)
        if problem is None:
            channel._popped = key, entry  # noqa: SLF001
            return reply
        handler(channel._queue_of(key), entry, problem)  # noqa: SLF001
        return None

    return type("CheckedRedis", (base,), {"parse_response": parse_response})


class Transport(redis.Transport):  # type: ignore[misc]
    """`redis://` and `rediss://`."""

    Channel = _CheckedChannel


class SentinelTransport(redis.SentinelTransport):  # type: ignore[misc]
    """`sentinel://`."""

    Channel = _CheckedSentinelChannel


def install() -> None:
    """Register these as the process's transports, and read kombu's envelopes with orjson."""
    redis.loads = serializer.loads
    TRANSPORT_ALIASES.update(
        {
            "redis": f"{__name__}:Transport",
            "rediss": f"{__name__}:Transport",
            "sentinel": f"{__name__}:SentinelTransport",
        }
    )
