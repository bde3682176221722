"""Answers of LLM servers: their lines, the text that grows from them, and errors."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from typing import Any, cast

import httpx
import orjson

from citadel_common.errors import BadLlmOutput, LlmRefused, LlmUnavailable
from citadel_contracts.errors import seconds_of_retry_after
from citadel_orchestration.llm.question import Piece, Usage

_ESCAPE = 6
_OVERHEAD = 64 * 1024
_MESSAGE_LIMIT = 300
_PASSING = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
_NEVER_PASSING = frozenset({"insufficient_quota"})


class Transcript:
    """The pieces of an answer so far.

    Args:
        max_bytes: Bytes of text at most.

    Attributes:
        model: The model; None until a piece names it.
        usage: The latest token counts.
        finish_reason: Why the model stopped; None until it has stopped.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._texts: list[str] = []
        self._size = 0
        self.model: str | None = None
        self.usage = Usage()
        self.finish_reason: str | None = None

    @property
    def text(self) -> str:
        """The text of all pieces."""
        return "".join(self._texts)

    @property
    def raw_limit(self) -> int:
        """Most bytes of a JSON value with that much text: an escaped character has six."""
        return _ESCAPE * self._max_bytes + _OVERHEAD

    def add(self, piece: Piece) -> bool:
        """Append a piece; return True if it is the last.

        Raises:
            BadLlmOutput: The text is longer than its limit.
        """
        if piece.text:
            self._texts.append(piece.text)
            self._size += len(piece.text.encode("utf-8", "replace"))
        if self._size > self._max_bytes:
            raise BadLlmOutput(f"the LLM's answer is longer than {self._max_bytes} bytes; ask for fewer tokens")
        self.model = piece.model or self.model
        self.usage = piece.usage or self.usage
        self.finish_reason = piece.finish_reason or self.finish_reason
        return piece.last


async def lines(response: httpx.Response, limit: int) -> AsyncGenerator[bytes]:
    """Yield the lines of a body as bytes.

    Text would be split too often: JSON may hold characters that end a line of text but not one of the protocol.

    Raises:
        BadLlmOutput: A line is longer than `limit` bytes.
    """
    rest = bytearray()
    async with contextlib.aclosing(cast("AsyncGenerator[bytes]", response.aiter_bytes())) as chunks:
        async for chunk in chunks:
            rest += chunk
            *whole, last = rest.split(b"\n") if b"\n" in chunk else [rest]
            for line in whole:
                yield bytes(line)
            rest = last
            if len(rest) > limit:
                raise BadLlmOutput(f"the LLM server sent a line of more than {limit} bytes")
    if rest:
        yield bytes(rest)


def refusal(where: str, status: int, body: bytes, retry_after: str | None) -> LlmUnavailable | LlmRefused:
    """Return the error that a status other than 200 means.

    Args:
        where: Name of the endpoint, for the message.
        status: HTTP status.
        body: Body of the response, or its beginning.
        retry_after: Value of the Retry-After header, if there is one.
    """
    message, code = _words(body)
    text = f"{where} answered {status}{_of_redirect(status)}: {message or 'no reason given'}"
    passing = status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    if not passing or code in _NEVER_PASSING:
        return LlmRefused(text)
    return LlmUnavailable(text, retry_after=seconds_of_retry_after(retry_after))


def error_in(content: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return message and code of an error inside an answer of status 200; None if there is none."""
    error = content.get("error")
    if not error:
        return None
    if isinstance(error, dict):
        return str(error.get("message") or error)[:_MESSAGE_LIMIT], str(error.get("code") or "")
    return str(error)[:_MESSAGE_LIMIT], ""


def _of_redirect(status: int) -> str:
    return " (redirects are not followed)" if 300 <= status < 400 else ""


def _words(body: bytes) -> tuple[str, str]:
    """Return message and code in the body of an error; both are empty if it is not JSON, such as a proxy's page."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(content, dict):
        return "", ""
    found = error_in(content)
    return found or (str(content.get("message") or content.get("detail") or "")[:_MESSAGE_LIMIT], "")
