"""The LLM double's answers as bytes, whole and in pieces, in both dialects."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from tests.doubles.llm_calls import ChatCall, count_tokens, prompt_tokens

CREATED = 1785585600
CREATED_AT = "2026-08-01T12:00:00Z"
STREAM_ERROR = "llama runner process no longer running: -1"
_WORDS = re.compile(r"\S+\s*|\s+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What is to be said; `usage` off leaves the token counts out."""

    text: str
    finish_reason: str = "stop"
    usage: bool = True

    @property
    def pieces(self) -> list[str]:
        """The text word by word."""
        return _WORDS.findall(self.text)


def _openai_usage(call: ChatCall, words: Words) -> dict[str, int]:
    said = count_tokens(words.text)
    return {"prompt_tokens": prompt_tokens(call), "completion_tokens": said, "total_tokens": prompt_tokens(call) + said}


def _openai(call: ChatCall, choices: list[dict[str, Any]], *, chunk: bool) -> dict[str, Any]:
    kind = "chat.completion.chunk" if chunk else "chat.completion"
    return {"id": "chatcmpl-1", "object": kind, "created": CREATED, "model": call.model, "choices": choices}


def _ollama(call: ChatCall, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": call.model, "created_at": CREATED_AT, "message": message, "done": False}


def _ollama_end(call: ChatCall, words: Words) -> dict[str, Any]:
    counts = {"prompt_eval_count": prompt_tokens(call), "eval_count": count_tokens(words.text)}
    times = {"total_duration": 2_000_000, "load_duration": 1_000, "eval_duration": 1_000_000}
    return {"done_reason": words.finish_reason, "done": True, **times, **(counts if words.usage else {})}


def whole(call: ChatCall, words: Words, *, openai: bool) -> bytes:
    """Return an answer in one piece."""
    if not openai:
        return orjson.dumps(_ollama(call, words.text) | _ollama_end(call, words))
    message = {"role": "assistant", "content": words.text}
    body = _openai(call, [{"index": 0, "message": message, "finish_reason": words.finish_reason}], chunk=False)
    return orjson.dumps(body | ({"usage": _openai_usage(call, words)} if words.usage else {}))


def stream_piece(call: ChatCall, text: str, *, openai: bool) -> bytes:
    """Return one piece of a stream."""
    if not openai:
        return orjson.dumps(_ollama(call, text)) + b"\n"
    return _event(_openai(call, [{"index": 0, "delta": {"content": text}, "finish_reason": None}], chunk=True))


def stream_end(call: ChatCall, words: Words, *, openai: bool, done: bool = True) -> Iterator[bytes]:
    """Return the pieces after the last word."""
    if not openai:
        yield orjson.dumps(_ollama(call, "") | _ollama_end(call, words)) + b"\n"
        return
    yield _event(_openai(call, [{"index": 0, "delta": {}, "finish_reason": words.finish_reason}], chunk=True))
    if words.usage and call.usage_in_stream:
        yield _event(_openai(call, [], chunk=True) | {"usage": _openai_usage(call, words)})
    if done:
        yield b"data: [DONE]\n\n"


def stream_error(*, openai: bool) -> bytes:
    """Return an error inside an answer, with status 200."""
    error: Any = {"message": STREAM_ERROR, "type": "server_error", "code": None} if openai else STREAM_ERROR
    return _event({"error": error}) if openai else orjson.dumps({"error": error}) + b"\n"


def _event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"
