"""Answers as bytes, in both dialects."""

from binascii import b2a_base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from tests.doubles.caller import Send
from tests.doubles.calls import Call
from tests.doubles.pacing import Slot
from tests.doubles.refusals import Refusal
from tests.doubles.vectors import Flaw, as_bytes, as_json

JSON = b"application/json; charset=utf-8"
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
OPENAI_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; `torn` sends half of the body only, and the connection is to be closed then.

    `slot` is where it was computed, to be told when the answer is written.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    retry_after_s: float | None = None
    torn: bool = False
    slot: Slot | None = None

    async def send(self, send: Send) -> None:
        """Write the response."""
        headers = [(b"content-type", self.content_type), (b"content-length", b"%d" % len(self.body))]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%g" % self.retry_after_s))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = self.body[: len(self.body) // 2] if self.torn else self.body
        await send({"type": "http.response.body", "body": body, "more_body": self.torn})
        if self.slot is not None:
            self.slot.settle()


def json_answer(value: Any) -> Answer:
    """Return a value as a JSON answer."""
    return Answer(orjson.dumps(value))


def error_answer(refusal: Refusal, *, openai: bool) -> Answer:
    """Return an error in the words of a dialect."""
    if refusal.html:
        page = f"<html><head><title>{refusal.message}</title></head><body></body></html>"
        return Answer(page.encode(), refusal.status, b"text/html")
    error: Any = _openai_error(refusal) if openai else refusal.message
    body = orjson.dumps({"error": error})
    return Answer(body, refusal.status, retry_after_s=refusal.retry_after_s)


def _openai_error(refusal: Refusal) -> dict[str, str | None]:
    return {
        "message": refusal.message,
        "type": OPENAI_TYPES.get(refusal.status, "api_error"),
        "param": None,
        "code": refusal.code or OPENAI_CODES.get(refusal.status),
    }


def encode_vector(call: Call, text: str, flaw: Flaw | None) -> bytes:
    """Return a text's vector as the JSON value that the call asks for."""
    if not call.base64:
        return as_json(call.spec, text, call.dimensions, flaw)
    return b'"' + b2a_base64(as_bytes(call.spec, text, call.dimensions, flaw), newline=False) + b'"'


def ollama_body(call: Call, vectors: Sequence[bytes], tokens: int, total_ns: int, load_ns: int) -> bytes:
    """Return the body of `POST /api/embed`; without texts it is model and embeddings only."""
    head = b'{"model":%b,"embeddings":[%b]' % (orjson.dumps(call.model), b",".join(vectors))
    if not call.texts:
        return head + b"}"
    counts = (total_ns, load_ns, tokens)
    return head + b',"total_duration":%d,"load_duration":%d,"prompt_eval_count":%d}' % counts


def openai_body(call: Call, vectors: Sequence[bytes], tokens: int, *, shuffled: bool) -> bytes:
    """Return the body of `POST /v1/embeddings`."""
    items = [
        b'{"object":"embedding","embedding":%b,"index":%d}' % (vector, index) for index, vector in enumerate(vectors)
    ]
    if shuffled:
        items.reverse()
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    parts = (b",".join(items), orjson.dumps(call.model), usage)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % parts
