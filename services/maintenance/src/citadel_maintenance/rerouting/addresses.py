"""The task that a message names, and where its sender meant to send it."""

import base64
from dataclasses import dataclass
from typing import Any

from kombu import compression

from citadel_common.delivery import serializer
from citadel_contracts import TASKS, AnyTaskSpec

_SPECS: dict[str, AnyTaskSpec] = {spec.name: spec for spec in TASKS}
_JSON = "application/json"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a message for a task of Citadel was sent.

    Attributes:
        spec: The task.
        exchange: The exchange; empty for kombu's default, where the routing key is the queue's name.
        routing_key: The routing key.
        priority: The priority, from 0 to 9, as kombu reads it.
    """

    spec: AnyTaskSpec
    exchange: str
    routing_key: str
    priority: int


def address_in(entry: bytes) -> Address | None:
    """Return the address of a list entry; None if it is no Celery message, or names no task of Citadel."""
    try:
        message = serializer.loads(entry)
        delivery = message["properties"]["delivery_info"]
        exchange, routing_key = delivery["exchange"], delivery["routing_key"]
        spec = _SPECS.get(_task_of(message))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if spec is None or not isinstance(exchange, str) or not isinstance(routing_key, str):
        return None
    priority = _priority_of(message["properties"].get("priority"))
    return Address(spec=spec, exchange=exchange, routing_key=routing_key, priority=priority)


def _task_of(message: Any) -> Any:
    """Return the name in the headers, or that in the body, where Celery's first protocol has it."""
    headers = message.get("headers") or {}
    return headers["task"] if "task" in headers else _payload_of(message, headers)["task"]


def _payload_of(message: Any, headers: Any) -> Any:
    if message["content-type"] != _JSON:
        raise ValueError("other contents are never read")
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body)
    if (name := headers.get("compression")) is not None:
        try:
            body = compression.decompress(body, name)
        except Exception as error:
            raise ValueError("the body cannot be decompressed") from error
    return serializer.loads(body)


def _priority_of(value: Any) -> int:
    try:
        return min(max(int(value), 0), 9)
    except (TypeError, ValueError, OverflowError):
        return 0
