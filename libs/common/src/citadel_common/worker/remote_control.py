"""Celery's remote control: a worker's side of kombu's mailbox, on a connection and in a thread of its own.

Commands come by Redis' pub/sub, answers go to a list of the one who asked. Kombu would read both on the consumer's
event loop, where a lost or silent subscription stops the consumer too, and it leaves keys behind for each worker and
each answer that nobody fetches. Whatever arrives here, and whatever fails, the worker goes on.
"""

import base64
import binascii
import fnmatch
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import structlog
from kombu import compression
from redis.exceptions import ConnectionError as RedisConnectionError

from citadel_common.delivery import serializer
from citadel_common.settings.redis_url import redis_address
from citadel_common.stores.redis import ERRORS, connect
from citadel_common.tasks.runtime import TaskRuntime
from citadel_common.worker.events import kombu_message

log = structlog.get_logger(__name__)
EXCHANGE, REPLIES = "celery.pidbox", "reply.celery.pidbox"
MOST_BYTES = 8 * 2**20
"""Bytes of one message: revokes of 100,000 ids. Redis itself ends subscribers to which it has to send 32 MiB."""
IDLE = 10.0
"""Seconds without a message until the server is asked whether it is there."""
SILENCE = 25.0
"""Seconds without a message or an answer after which the connection is dead."""
PAUSE = 1.0
"""Seconds until the next try to listen."""
REPLY_TTL = 60
"""Seconds that an answer waits for the one who asked."""
MOST_NAME = 255
"""Most characters in a pattern, or in the name of a list for answers."""


class BadCommand(ValueError):
    """The message is not a command that a worker can read."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        method: Its name.
        arguments: By name.
        destination: Workers that it is for; empty for all.
        pattern: A shell pattern of the workers that it is for, if no destination is named.
        routing_key: Of the list that gets the answer; None if nobody waits for one.
        ticket: The asker's id of the question.
    """

    method: str
    arguments: Mapping[str, Any]
    destination: frozenset[str]
    pattern: str | None
    routing_key: str | None
    ticket: str | None

    def is_for(self, hostname: str) -> bool:
        """Return whether a worker is meant."""
        if self.destination:
            return hostname in self.destination
        return self.pattern is None or fnmatch.fnmatchcase(hostname, self.pattern)


class RemoteControl:
    """Listens to commands from `start` to the end of the process.

    Args:
        runtime: Of the worker.
        answer: Carries out a command, given its name and arguments, and returns the answer.
        on_subscribed: Called each time when commands that come from now on arrive here; earlier ones may be lost.
    """

    def __init__(
        self,
        runtime: TaskRuntime,
        answer: Callable[[str, Mapping[str, Any]], Any],
        on_subscribed: Callable[[], None],
    ) -> None:
        settings = runtime.settings
        self._hostname = runtime.identity.id
        self._app = runtime.app
        self._answer = answer
        self._on_subscribed = on_subscribed
        self._is_listening = True
        self._client = connect(settings.broker_url, settings.stores)
        self._channel = f"/{redis_address(settings.broker_url.get_secret_value()).database}.{EXCHANGE}"
        self._thread = threading.Thread(target=self._run, name="remote-control", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._listen()
            except ERRORS as error:
                if self._is_listening:  # else each try of a long outage would be told
                    log.warning("remote_control_unavailable", error=type(error).__name__)
                self._is_listening = False
            except Exception:
                log.exception("remote_control_crashed")
            time.sleep(PAUSE)

    def _listen(self) -> None:
        subscription: Any = self._client.pubsub()  # type: ignore[no-untyped-call]
        with subscription:
            subscription.subscribe(self._channel)
            heard = time.monotonic()
            while True:
                message = subscription.get_message(timeout=IDLE)
                if message is not None:
                    heard = time.monotonic()
                    self._receive(message)
                elif time.monotonic() - heard > SILENCE:
                    raise RedisConnectionError("the server is silent")
                else:
                    # a connection that died in silence is never readable: only a missing answer tells
                    subscription.ping()

    def _receive(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "subscribe":  # also after a connection that redis-py has opened again by itself
            self._is_listening = True
            self._on_subscribed()
        elif message["type"] == "message":
            self._handle(message["data"])

    def _handle(self, data: bytes) -> None:
        try:
            command = command_in(data)
            if command.is_for(self._hostname):
                self._carry_out(command)
        except BadCommand as error:
            log.warning("control_malformed", problem=str(error), size=len(data))
        except ERRORS as error:
            log.warning("control_not_answered", error=type(error).__name__)
        except Exception:
            log.exception("control_crashed")

    def _carry_out(self, command: Command) -> None:
        answer = self._answer(command.method, command.arguments)
        if command.routing_key is None:
            return
        headers = {"ticket": command.ticket, "clock": self._app.clock.forward()}
        message = kombu_message({self._hostname: answer}, headers, exchange=REPLIES, routing_key=command.routing_key)
        key = f"{command.routing_key}.{REPLIES}"
        pipe = self._client.pipeline()
        pipe.lpush(key, message)
        pipe.expire(key, REPLY_TTL)
        pipe.execute()


def command_in(data: bytes) -> Command:
    """Return the command in a message of kombu's mailbox.

    Raises:
        BadCommand: It is not one; the message says why, and quotes nothing of it.
    """
    if len(data) > MOST_BYTES:
        raise BadCommand(f"it is larger than {MOST_BYTES} bytes")
    body = _body_of(_json(data))
    method, arguments = body.get("method"), body.get("arguments") or {}
    if not isinstance(method, str) or not isinstance(arguments, dict):
        raise BadCommand("method or arguments are not text and mapping")
    destination, pattern = body.get("destination") or [], body.get("pattern")
    if not isinstance(destination, list) or not all(isinstance(name, str) for name in destination):
        raise BadCommand("destination is not a list of names")
    if pattern is not None and (not _is_name(pattern) or body.get("matcher") != "glob"):
        # a regular expression can take longer than the worker lives
        raise BadCommand("workers are matched by shell patterns (glob) only")
    return Command(
        method=method,
        arguments=arguments,
        destination=frozenset(destination),
        pattern=pattern,
        routing_key=_reply_key(body.get("reply_to")),
        ticket=ticket if isinstance(ticket := body.get("ticket"), str) else None,
    )


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = serializer.loads(text)
    except (ValueError, RecursionError):
        raise BadCommand("it is not JSON") from None
    if not isinstance(value, dict):
        raise BadCommand("it is not a JSON object")
    return value


def _body_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decoded body of a message of kombu's."""
    body, headers, properties = (message.get(name) for name in ("body", "headers", "properties"))
    if message.get("content-type") != "application/json" or not isinstance(body, str):
        raise BadCommand("its body is not JSON text")
    content = body.encode("utf-8", "surrogatepass")
    try:
        if isinstance(properties, dict) and properties.get("body_encoding") == "base64":
            content = base64.b64decode(content)
        if isinstance(headers, dict) and headers.get("compression"):
            content = compression.decompress(content, headers["compression"])
    except (binascii.Error, ValueError):
        raise BadCommand("its body is not base64") from None
    except Exception as error:  # noqa: BLE001  (each decompressor has errors of its own)
        raise BadCommand(f"its body cannot be decompressed: {type(error).__name__}") from None
    return _json(content)


def _reply_key(reply_to: object) -> str | None:
    """Return the routing key of the answer; None if nobody waits for one.

    The exchange is kombu's own: the answer goes to a list of that name's end, and to no other key of the broker.
    """
    if reply_to is None:
        return None
    match reply_to:
        case {"exchange": exchange, "routing_key": key} if exchange == REPLIES and _is_name(key):
            return key
    raise BadCommand("reply_to is not a list for answers")


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MOST_NAME and value.isprintable()
