"""Messages of Celery clients with other settings, and of clients in other languages, in the form that workers expect.

Celery's first protocol has the task's name in the body; clients for Go, PHP and Node.js still send it. Some name an
exchange of their own, or always `celery`. A retry would follow that name, and the message would leave its queue.
"""

from typing import Any

from citadel_common.delivery import serializer
from citadel_common.delivery.compression import READABLE

_JSON = "application/json"
_HEADERS = ("task", "id", "root_id", "parent_id", "retries", "eta", "expires", "timelimit", "group", "shadow")
_OPTIONS = ("callbacks", "errbacks", "chain", "chord")


def adapt(message: Any, queue: str) -> str | None:
    """Change a message in place to one of Celery's second protocol that was sent to the queue directly.

    Args:
        message: Kombu's message.
        queue: The queue that it was taken from.

    Returns:
        Why it cannot be read, with the client's setting to change; None if it can, or if that is for others to find.
    """
    if not isinstance(message.headers, dict):
        return None
    problem = unreadable(message)
    if problem is not None:
        return problem
    message.delivery_info |= {"exchange": "", "routing_key": queue}
    if "task" not in message.headers:
        _move_to_second_protocol(message)
    return None


def unreadable(message: Any) -> str | None:
    """Return why the message's compression or content type is not read, with the client's setting to change."""
    compression, content_type = (message.headers or {}).get("compression"), message.content_type
    if compression is not None and not (isinstance(compression, str) and compression in READABLE):
        return (
            f"the body is compressed by {compression!r}, and workers decompress only what they can bound: set the"
            " client's task_compression to 'gzip', 'bzip2', 'lzma' or None"
        )
    if content_type != _JSON:
        return (
            f"the content type is {content_type!r}, and workers load nothing but {_JSON!r}: set the client's"
            " task_serializer to 'json'"
        )
    return None


def _move_to_second_protocol(message: Any) -> None:
    try:
        payload = message.payload
    except Exception:  # noqa: BLE001  (Celery's own checks report why it cannot be decoded)
        return
    if not isinstance(payload, dict) or "task" not in payload:
        return
    message.headers = message.headers | {name: payload[name] for name in _HEADERS if name in payload}
    if "taskset" in payload:
        message.headers["group"] = payload["taskset"]
    options = {name: payload.get(name) for name in _OPTIONS}
    message.body = serializer.dumps([payload.get("args", []), payload.get("kwargs", {}), options]).encode()
    message._decoded_cache = None  # noqa: SLF001  (kombu offers no other way)
