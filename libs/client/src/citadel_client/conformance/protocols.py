"""Requests and answers of the two protocols, as a conformance run needs them."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from citadel_client.conformance.server import Reply
from citadel_contracts.base_urls import ollama_base, openai_base

Style = Literal["openai", "ollama"]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Said:
    """The answer of an LLM.

    Attributes:
        text: Its words.
        finish: Why it ended; empty if it does not say.
        tokens: Tokens of the answer; None if they are not counted.
        reasoning: Where its reasoning is: a field's name, or empty.
        is_stream: Whether it came in pieces.
        is_ended: Whether the stream has its end.
    """

    text: str = ""
    finish: str = ""
    tokens: int | None = None
    reasoning: str = ""
    is_stream: bool = False
    is_ended: bool = True


class Wire(Protocol):
    """One protocol."""

    style: Style

    def models_url(self, url: str) -> str:
        """Return the URL of the list of models."""

    def models(self, reply: Reply) -> list[dict[str, Any]]:
        """Return the listed models; each has a `name`, perhaps a `digest` and `max_tokens`."""

    def embed_url(self, url: str) -> str:
        """Return the URL for texts."""

    def vectors(self, reply: Reply) -> list[Vector | None]:
        """Return the vectors in the order of the texts; None for one that cannot be read."""

    def is_base64(self, reply: Reply) -> bool:
        """Return whether the vectors came in base64."""

    def embed_tokens(self, reply: Reply) -> object:
        """Return the count of tokens."""

    def chat_url(self, url: str) -> str:
        """Return the URL for questions."""

    def question(self, model: str, prompt: str, tokens: int, *, stream: bool = False) -> dict[str, Any]:
        """Return the body of a question."""

    def json_fields(self, schema: dict[str, Any] | None) -> dict[str, Any]:
        """Return the fields that ask for JSON, by a schema if there is one."""

    def said(self, reply: Reply) -> Said:
        """Return what an LLM has said, whole or in a stream."""


def _vector(value: Any) -> Vector | None:
    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(float)
        vector = np.array(value, dtype=float)
    except (ValueError, TypeError, OverflowError, binascii.Error):
        return None
    return vector if vector.ndim == 1 and vector.size and bool(np.isfinite(vector).all()) else None


def _is_name(value: Any) -> bool:
    """Return whether a value can be a model's name, which is printed into lines of settings."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class OpenAIWire:
    """OpenAI's protocol."""

    style: Style = "openai"

    def models_url(self, url: str) -> str:
        """Return the URL of the list of models."""
        return openai_base(url).route("/models")

    def models(self, reply: Reply) -> list[dict[str, Any]]:
        """Return the listed models."""
        return [
            {
                "name": str(item.get("id")),
                "max_tokens": item.get("max_model_len") or _mapping(item.get("meta")).get("n_ctx"),
            }
            for item in _items(_mapping(reply.body).get("data"))
            if _is_name(item.get("id"))
        ]

    def embed_url(self, url: str) -> str:
        """Return the URL for texts."""
        return openai_base(url).route("/embeddings")

    def vectors(self, reply: Reply) -> list[Vector | None]:
        """Return the vectors in the order of `index`."""
        items = _items(_mapping(reply.body).get("data"))
        rows: dict[int, Vector | None] = {}
        for position, item in enumerate(items):
            index = item.get("index", position)
            rows[index if isinstance(index, int) else position] = _vector(item.get("embedding"))
        return [rows.get(position) for position in range(len(items))]

    def is_base64(self, reply: Reply) -> bool:
        """Return whether the vectors came in base64."""
        return any(isinstance(item.get("embedding"), str) for item in _items(_mapping(reply.body).get("data")))

    def embed_tokens(self, reply: Reply) -> object:
        """Return the count of tokens."""
        return _mapping(_mapping(reply.body).get("usage")).get("prompt_tokens")

    def chat_url(self, url: str) -> str:
        """Return the URL for questions."""
        return openai_base(url).route("/chat/completions")

    def question(self, model: str, prompt: str, tokens: int, *, stream: bool = False) -> dict[str, Any]:
        """Return the body of a question."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": tokens}
        return body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})

    def json_fields(self, schema: dict[str, Any] | None) -> dict[str, Any]:
        """Return `response_format`."""
        if schema is None:
            return {"response_format": {"type": "json_object"}}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}

    def said(self, reply: Reply) -> Said:
        """Return what an LLM has said."""
        if not reply.kind.startswith("text/event-stream"):
            return _joined([_mapping(reply.body)], "message")
        lines = [line[5:].strip() for line in reply.text.splitlines() if line.startswith("data:")]
        pieces = [_parsed(line) for line in lines if line != "[DONE]"]
        return _joined(pieces, "delta", is_stream=True, is_ended="[DONE]" in lines)


def _joined(pieces: Sequence[dict[str, Any]], member: str, **facts: bool) -> Said:
    text, finish, reasoning, tokens = "", "", "", None
    for piece in pieces:
        choice = next(iter(_items(piece.get("choices"))), {})
        words = _mapping(choice.get(member))
        text += words["content"] if isinstance(words.get("content"), str) else ""
        finish = str(choice.get("finish_reason") or finish)
        reasoning = reasoning or next((name for name in ("reasoning_content", "reasoning") if words.get(name)), "")
        tokens = _mapping(piece.get("usage")).get("completion_tokens", tokens)
    return Said(text=text, finish=finish, tokens=tokens, reasoning=reasoning, **facts)


def _parsed(line: str) -> dict[str, Any]:
    try:
        return _mapping(json.loads(line))
    except (ValueError, RecursionError):
        return {}


class OllamaWire:
    """Ollama's own protocol."""

    style: Style = "ollama"

    def models_url(self, url: str) -> str:
        """Return the URL of the list of models."""
        return ollama_base(url).route("/api/tags")

    def models(self, reply: Reply) -> list[dict[str, Any]]:
        """Return the pulled models."""
        return [
            {
                "name": str(item.get("name")).removesuffix(":latest"),
                "digest": item.get("digest"),
                "max_tokens": _mapping(item.get("details")).get("context_length"),
            }
            for item in _items(_mapping(reply.body).get("models"))
            if _is_name(item.get("name"))
        ]

    def embed_url(self, url: str) -> str:
        """Return the URL for texts."""
        return ollama_base(url).route("/api/embed")

    def vectors(self, reply: Reply) -> list[Vector | None]:
        """Return the vectors."""
        rows = _mapping(reply.body).get("embeddings")
        return [_vector(row) for row in rows] if isinstance(rows, list) else []

    def is_base64(self, reply: Reply) -> bool:
        """Return False: the protocol has no base64."""
        del reply
        return False

    def embed_tokens(self, reply: Reply) -> object:
        """Return the count of tokens."""
        return _mapping(reply.body).get("prompt_eval_count")

    def chat_url(self, url: str) -> str:
        """Return the URL for questions."""
        return ollama_base(url).route("/api/chat")

    def question(self, model: str, prompt: str, tokens: int, *, stream: bool = False) -> dict[str, Any]:
        """Return the body of a question."""
        messages = [{"role": "user", "content": prompt}]
        return {"model": model, "messages": messages, "stream": stream, "options": {"num_predict": tokens}}

    def json_fields(self, schema: dict[str, Any] | None) -> dict[str, Any]:
        """Return `format`."""
        return {"format": schema or "json"}

    def said(self, reply: Reply) -> Said:
        """Return what an LLM has said."""
        pieces = [_parsed(line) for line in reply.text.splitlines() if line.strip()]
        words = [_mapping(piece.get("message")) for piece in pieces]
        last = pieces[-1] if pieces else {}
        return Said(
            text="".join(str(word.get("content") or "") for word in words),
            finish=str(last.get("done_reason") or ""),
            tokens=last.get("eval_count"),
            reasoning="thinking" if any(word.get("thinking") for word in words) else "",
            is_stream=len(pieces) > 1,
            is_ended=last.get("done") is True,
        )


WIRES: dict[Style, Wire] = {"openai": OpenAIWire(), "ollama": OllamaWire()}
