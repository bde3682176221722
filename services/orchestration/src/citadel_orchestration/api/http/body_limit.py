"""Limit of request bodies: checked against the declared length, or while the body streams in."""

from typing import Any

from citadel_orchestration.api.http.body_memory import SCOPE_KEY, BodyMemory, Share
from citadel_orchestration.api.http.errors import BodyTooLarge, UnsupportedMediaType
from citadel_orchestration.api.http.trace import header_of

STREAMED_PATH = "/v1/embeddings/batches"
_PLAIN_ENCODINGS = frozenset({b"", b"identity"})
_NDJSON_TYPES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"})


class BodyLimit:
    """Refuses bodies that are too long.

    Args:
        max_bytes: Most bytes of a body.
        max_streamed_bytes: Most bytes of a batch sent as NDJSON.
        memory: Budget of all bodies in flight.
    """

    def __init__(self, max_bytes: int, max_streamed_bytes: int, memory: BodyMemory) -> None:
        self._memory = memory
        self._max_bytes = max_bytes
        self._max_streamed_bytes = max_streamed_bytes

    def guard(self, scope: Any, receive: Any) -> Any:
        """Return `receive`, wrapped to count bytes where the request declares no length, and give the body a share.

        Raises:
            BodyTooLarge: The declared length exceeds the limit.
            UnsupportedMediaType: The body is compressed, so that its length says nothing.
        """
        if scope["method"] == "GET":
            return receive
        scope[SCOPE_KEY] = Share(self._memory)
        encoding = header_of(scope, b"content-encoding").strip().lower()
        if encoding not in _PLAIN_ENCODINGS:
            raise UnsupportedMediaType("a body must not be compressed: send it without Content-Encoding")
        limit = self._max_streamed_bytes if _is_streamed(scope) else self._max_bytes
        for name, value in scope["headers"]:
            # The server reads no more than was declared, so a declared length needs no counting.
            if name == b"content-length" and value.isdigit():
                if int(value) > limit:
                    raise _too_large(limit)
                return receive
        return _counting(receive, limit)


def release(scope: Any) -> None:
    """Give back the memory of a request's body."""
    share: Share | None = scope.get(SCOPE_KEY)
    if share is not None:
        share.release()


def is_ndjson(content_type: str) -> bool:
    """Return whether a body of this type holds one JSON value per line."""
    return content_type.partition(";")[0].strip().lower() in _NDJSON_TYPES


def _is_streamed(scope: Any) -> bool:
    """Return whether the route reads the body line by line, so that its size costs no memory."""
    if scope["path"] != STREAMED_PATH:
        return False
    return any(name == b"content-type" and is_ndjson(value.decode("latin-1")) for name, value in scope["headers"])


def _counting(receive: Any, limit: int) -> Any:
    received = 0

    async def bounded() -> Any:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return bounded


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has more than {limit} bytes, the limit")
