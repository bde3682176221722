"""Entries of a queue's lists: reading them, and the forms in which they are held and given back.

A held message is stored as kombu stores it, `[MESSAGE, EXCHANGE, ROUTING KEY]`, so that older workers can give it back.
The exchange is empty and the routing key is the queue, which needs no bindings.
"""

import base64
import binascii
import re
from bisect import bisect
from typing import Any, TypeGuard

from citadel_common.delivery import serializer
from citadel_common.delivery.dead_letters import HISTORY_HEADER, HISTORY_LENGTH
from citadel_common.delivery.queues import STEPS
from citadel_common.timestamps import utc_now

ID_LIMIT = 255
"""Most characters in a task's id."""
_ROUTE = ("exchange", "routing_key")
_TAG = re.compile(r"(\d)-[0-9a-f]{12}-\d+")
"""A tag that a worker gives to a message when it takes it: the step of its lane, the taking, the number in it."""
_TEXT_ENCODINGS = (None, "base64")


class MalformedEntry(ValueError):
    """A list entry that kombu cannot read as a message; its text says why."""


def read(entry: bytes) -> dict[str, Any]:
    """Return the message in a list entry.

    Raises:
        MalformedEntry: It is not a message.
    """
    try:
        message = serializer.loads(entry)
    except (ValueError, RecursionError) as error:
        raise MalformedEntry(f"not JSON: {error}") from None
    problem = _problem_of(message)
    if problem is not None:
        raise MalformedEntry(problem)
    checked: dict[str, Any] = message
    return checked


def problem_of(entry: bytes) -> str | None:
    """Return why kombu could not read a list entry, or None if it can."""
    try:
        read(entry)
    except MalformedEntry as error:
        return str(error)
    return None


def _problem_of(message: Any) -> str | None:
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


def _body_problem(body: Any, encoding: Any) -> str | None:
    if not isinstance(body, str):
        return "body is not a string"
    if encoding not in _TEXT_ENCODINGS:
        return f"body_encoding {encoding!r} is unknown"
    if encoding == "base64":
        try:
            base64.b64decode(body)
        except (binascii.Error, ValueError) as error:
            return f"body is not base64: {error}"
    return None


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


def held_suffix(queue: str) -> str:
    """Return what follows the entry in the stored form of a held message of that queue; `[` goes before it."""
    return f',"",{serializer.dumps(queue)}]'


def step_in(tag: str) -> int | None:
    """Return the priority step that a taken message's tag names; None for a tag that its publisher gave."""
    named = _TAG.fullmatch(tag)
    return None if named is None else int(named[1])


def entry_to_give_back(held: bytes, *, redelivered: bool, died_with: str | None = None) -> bytes:
    """Return the list entry of a held message.

    Args:
        held: The stored form.
        redelivered: Mark it as delivered before, so that this delivery is counted.
        died_with: Id of the worker that died with it, for the task's history.
    """
    entry = held[1:].rsplit(b",", 2)[0]  # without exchange and routing key
    if not redelivered:
        return entry
    try:
        message = serializer.loads(entry)
        _mark(message, died_with)
        return serializer.dumps(message).encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return entry  # the worker that takes it next finds it malformed, as this one did or would have


def _mark(message: Any, died_with: str | None) -> None:
    headers = message["headers"]
    headers["redelivered"] = message["properties"]["delivery_info"]["redelivered"] = True
    if died_with is None:
        return
    earlier = headers.get(HISTORY_HEADER)
    death = {"at": utc_now(), "code": "worker_lost", "error": "the worker died with it", "worker": died_with}
    headers[HISTORY_HEADER] = [*(earlier if isinstance(earlier, list) else []), death][-HISTORY_LENGTH:]


def step_of(tag: str, held: bytes) -> int:
    """Return the priority step of the lane that a held message comes from.

    Its tag says it. An older worker's tag does not: there the message's own priority decides, as kombu has it.
    """
    named = step_in(tag)
    if named is not None:
        return named
    try:
        priority = min(max(int(serializer.loads(held)[0]["properties"]["priority"]), 0), 9)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        priority = 0
    return STEPS[bisect(STEPS, priority) - 1]
