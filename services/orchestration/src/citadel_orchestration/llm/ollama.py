"""Ollama's own protocol (`/api/chat`). Source: Ollama's API documentation and server code, August 2026."""

from collections.abc import Mapping
from typing import Any

from citadel_common.settings.llm import EndpointSettings
from citadel_orchestration.llm.question import Piece, Question, Usage

_OPTION_NAMES = {"max_tokens": "num_predict", "max_completion_tokens": "num_predict"}
_FIELDS = frozenset({"keep_alive", "think"})


class OllamaStyle:
    """Requests and answers of Ollama's protocol; streams are JSON lines."""

    def url(self, base: str) -> str:
        """Where questions go."""
        return f"{base.removesuffix('/v1')}/api/chat"

    def body(self, question: Question, settings: EndpointSettings) -> dict[str, Any]:
        """The request."""
        options = {_OPTION_NAMES.get(name, name): value for name, value in question.options.items()}
        if settings.threads is not None:
            options.setdefault("num_thread", settings.threads)
        body: dict[str, Any] = {name: options.pop(name) for name in _FIELDS & options.keys()}
        body |= {
            "model": question.model or settings.model,
            "messages": question.wire_messages(),
            "stream": settings.stream,
            "options": options,
        }
        if question.schema is not None and settings.json_mode != "prompt":
            body["format"] = dict(question.schema) if settings.json_mode == "schema" else "json"
        return body

    def is_stream(self, content_type: str) -> bool:
        """Whether the answer is to be read line by line: a whole answer is one line, too."""
        del content_type
        return True

    def payload(self, line: bytes) -> bytes | None:
        """The data of a line."""
        return line.strip() or None

    def is_end(self, payload: bytes) -> bool:
        """Never: the last piece says itself that it is the last."""
        del payload
        return False

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """A line of a stream, or a whole answer."""
        message = content.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        model = content.get("model")
        done = content.get("done") is True
        return Piece(
            text=text if isinstance(text, str) else "",
            model=model if isinstance(model, str) and model else None,
            usage=Usage.of(content.get("prompt_eval_count"), content.get("eval_count")) if done else None,
            finish_reason=str(content.get("done_reason") or "stop") if done else None,
            last=done,
        )
