"""Answers as bytes, and the forms that Ollama and OpenAI have in common."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tests.doubles.base.caller import Send
from tests.doubles.base.refusals import HangUpError, Refusal, RefusalError, refuse

JSON = b"application/json; charset=utf-8"
GO_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    Attributes:
        body: The body, whose length is announced.
        status: HTTP status.
        content_type: Content type.
        headers: Further headers.
        pieces: Pieces sent in place of the body; a HangUpError among them closes the connection.
        sent: Called once the answer is written.
    """

    body: bytes = b""
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    pieces: AsyncIterator[bytes] | None = None
    sent: Callable[[], None] | None = None

    async def send(self, send: Send) -> None:
        """Write the response."""
        headers = [(b"content-type", self.content_type), *self.headers]
        if self.body or self.pieces is None:
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self.pieces is None:
            await send({"type": "http.response.body", "body": self.body})
        else:
            async for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        if self.sent is not None:
            self.sent()


def torn(answer: Answer) -> Answer:
    """Return an answer that breaks off after half of its body."""

    async def half() -> AsyncIterator[bytes]:
        yield answer.body[: len(answer.body) // 2]
        raise HangUpError

    return replace(answer, pieces=half())


def halved(answer: Answer) -> Answer:
    """Return an answer with half of its body, as if that were all."""
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def json_answer(value: Any, status: int = 200) -> Answer:
    """Return a value as a JSON answer."""
    return Answer(orjson.dumps(value), status)


def text_answer(text: bytes, status: int = 200, content_type: bytes = b"text/plain") -> Answer:
    """Return an answer that is not JSON."""
    return Answer(text, status, content_type)


def html_answer(refusal: Refusal) -> Answer:
    """Return an error as the page of a proxy."""
    page = f"<html><head><title>{refusal.message}</title></head><body></body></html>"
    return text_answer(page.encode(), refusal.status, b"text/html")


def error_answer(refusal: Refusal, *, openai: bool) -> Answer:
    """Return an error in the form of Ollama or OpenAI."""
    if refusal.html:
        return html_answer(refusal)
    error: Any = _openai_error(refusal) if openai else refusal.message
    return replace(json_answer({"error": error}, refusal.status), headers=retry_after(refusal))


def retry_after(refusal: Refusal) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that say when to try again."""
    return () if refusal.retry_after_s is None else ((b"retry-after", b"%g" % refusal.retry_after_s),)


def _openai_error(refusal: Refusal) -> dict[str, str | None]:
    return {
        "message": refusal.message,
        "type": OPENAI_TYPES.get(refusal.status, "api_error"),
        "param": None,
        "code": refusal.code or OPENAI_CODES.get(refusal.status),
    }


def llama_error(refusal: Refusal) -> Answer:
    """Return an error in the form of llama-server."""
    kinds = {401: "authentication_error", 404: "not_found_error", 500: "server_error", 503: "unavailable_error"}
    kind = refusal.code or kinds.get(refusal.status, "invalid_request_error")
    error = {"code": refusal.status, "message": refusal.message, "type": kind}
    return replace(json_answer({"error": error}, refusal.status), headers=retry_after(refusal))


def read_json(body: bytes) -> dict[str, Any]:
    """Return a request's JSON object, or refuse as Ollama does."""
    if not body:
        raise refuse(400, "missing request body")
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise refuse(400, f"invalid character: {error}") from None
    if not isinstance(data, dict):
        raise refuse(400, f"json: cannot unmarshal {go_name(data)} into Go value of type api.EmbedRequest")
    return data


def go_name(value: Any) -> str:
    """Return the name of a JSON value's type in Go's error messages."""
    return GO_NAMES.get(type(value), "null")


def model_missing(name: str) -> RefusalError:
    """Return Ollama's answer for a model that is not installed."""
    return refuse(404, f'model "{name}" not found, try pulling it first')
