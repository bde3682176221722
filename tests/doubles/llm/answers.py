"""Answers as bytes, whole and in pieces, in the forms of OpenAI and Ollama."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tests.doubles.llm.requests import ChatRequest, count_tokens, prompt_tokens

CREATED = 1785585600
CREATED_AT = "2026-08-01T12:00:00Z"
STREAM_ERROR = "llama runner process no longer running: -1"
_WORDS = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Text of an answer; without `usage` it has no token counts."""

    text: str
    finish_reason: str = "stop"
    usage: bool = True

    @property
    def pieces(self) -> list[str]:
        """The text word by word."""
        return _WORDS.findall(self.text)

    def cut(self, most: int | None) -> "Words":
        """Return the words that fit a limit of tokens; a text that is cut says so."""
        pieces = self.pieces
        if most is None or len(pieces) <= most:
            return self
        return replace(self, text="".join(pieces[:most]), finish_reason="length")


def _openai_usage(request: ChatRequest, words: Words) -> dict[str, int]:
    read, said = prompt_tokens(request), count_tokens(words.text)
    return {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


def _openai(request: ChatRequest, choices: list[dict[str, Any]], *, chunk: bool) -> dict[str, Any]:
    kind = "chat.completion.chunk" if chunk else "chat.completion"
    return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": request.model, "choices": choices}


def _ollama(request: ChatRequest, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": request.model, "created_at": CREATED_AT, "message": message, "done": False}


def _ollama_end(request: ChatRequest, words: Words) -> dict[str, Any]:
    counts = {"prompt_eval_count": prompt_tokens(request), "eval_count": count_tokens(words.text)}
    times = {"total_duration": 2_000_000, "load_duration": 1_000, "eval_duration": 1_000_000}
    return {"done_reason": words.finish_reason, "done": True, **times, **(counts if words.usage else {})}


def whole(request: ChatRequest, words: Words) -> bytes:
    """Return an answer in one piece."""
    if not request.openai:
        return orjson.dumps(_ollama(request, words.text) | _ollama_end(request, words))
    message = {"role": "assistant", "content": words.text}
    body = _openai(request, [{"index": 0, "message": message, "finish_reason": words.finish_reason}], chunk=False)
    return orjson.dumps(body | ({"usage": _openai_usage(request, words)} if words.usage else {}))


def stream_begin(request: ChatRequest) -> Iterator[bytes]:
    """Return the pieces before the first word: OpenAI's protocol names the role, with no text."""
    if request.openai:
        delta = {"role": "assistant", "content": None}
        yield _event(_openai(request, [{"index": 0, "delta": delta, "finish_reason": None}], chunk=True))


def stream_piece(request: ChatRequest, text: str) -> bytes:
    """Return one piece of a stream."""
    if not request.openai:
        return orjson.dumps(_ollama(request, text)) + b"\n"
    return _event(_openai(request, [{"index": 0, "delta": {"content": text}, "finish_reason": None}], chunk=True))


def stream_end(request: ChatRequest, words: Words, *, done: bool) -> Iterator[bytes]:
    """Return the pieces after the last word."""
    if not request.openai:
        yield orjson.dumps(_ollama(request, "") | _ollama_end(request, words)) + b"\n"
        return
    yield _event(_openai(request, [{"index": 0, "delta": {}, "finish_reason": words.finish_reason}], chunk=True))
    if words.usage and request.usage_in_stream:
        yield _event(_openai(request, [], chunk=True) | {"usage": _openai_usage(request, words)})
    if done:
        yield b"data: [DONE]\n\n"


def stream_error(request: ChatRequest) -> bytes:
    """Return an error inside an answer, with status 200."""
    if not request.openai:
        return orjson.dumps({"error": STREAM_ERROR}) + b"\n"
    return _event({"error": {"message": STREAM_ERROR, "type": "server_error", "code": None}})


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
