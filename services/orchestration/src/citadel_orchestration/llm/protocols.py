"""The protocols of LLM servers: OpenAI's chat completions, and Ollama's own.

Sources: OpenAI's API reference, chat completions; server-sent events as in the HTML standard; Ollama's API
documentation and server code, August 2026.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from citadel_common.errors import LlmRefused
from citadel_common.settings.llm import EndpointSettings
from citadel_contracts.base_urls import ollama_base, openai_base
from citadel_orchestration.llm.question import Piece, Question, Usage

STREAM_TYPE = "text/event-stream"
_OPENAI_OPTIONS = {"num_predict": "max_tokens"}
_DONE = b"[DONE]"
_OLLAMA_OPTIONS = {"max_tokens": "num_predict", "max_completion_tokens": "num_predict"}
_OLLAMA_FIELDS = frozenset({"keep_alive", "think"})


class ChatStyle(Protocol):
    """Requests and answers of one protocol."""

    def url(self, base: str) -> str:
        """Return the URL of questions."""

    def body(self, question: Question, settings: EndpointSettings) -> dict[str, Any]:
        """Return the body of a request."""

    def is_stream(self, content_type: str) -> bool:
        """Return True if an answer of that content type, to a request for a stream, is a stream."""

    def payload(self, line: bytes) -> bytes | None:
        """Return the data of a line of a stream; None for a line without data."""

    def is_end(self, payload: bytes) -> bool:
        """Return True if a payload marks the end of the stream and holds nothing else."""

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """Return a part of a stream, or a whole answer."""


class OpenAIStyle:
    """Requests and answers of OpenAI's protocol."""

    def url(self, base: str) -> str:
        """Return the URL of questions."""
        return openai_base(base).route("/chat/completions")

    def body(self, question: Question, settings: EndpointSettings) -> dict[str, Any]:
        """Return the body of a request."""
        body = {_OPENAI_OPTIONS.get(name, name): value for name, value in question.options.items()}
        body |= {"model": question.model or settings.model, "messages": question.wire_messages()}
        if settings.stream:
            body["stream"] = True
        if settings.stream and settings.stream_usage:
            body["stream_options"] = {"include_usage": True}
        if question.schema is not None and settings.json_mode != "prompt":
            body["response_format"] = _response_format(question.schema, settings)
        return body

    def is_stream(self, content_type: str) -> bool:
        """Return True for server-sent events; servers that cannot stream answer in one piece, even when asked to."""
        return content_type.startswith(STREAM_TYPE)

    def payload(self, line: bytes) -> bytes | None:
        """Return the data of a line of a stream; None for comments, other fields and blank lines."""
        return line[5:].strip() if line.startswith(b"data:") else None

    def is_end(self, payload: bytes) -> bool:
        """Return True if a payload marks the end of the stream and holds nothing else."""
        return payload == _DONE

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """Return a chunk of a stream, or a whole answer.

        Raises:
            LlmRefused: The model declines to answer.
        """
        choice = _first(content.get("choices"))
        words = choice.get("delta") or choice.get("message") or {}
        if not isinstance(words, dict):
            words = {}
        if words.get("refusal"):
            raise LlmRefused(f"the model declines: {str(words['refusal'])[:300]}")
        return Piece(
            text=_text(words.get("content")),
            model=_string(content.get("model")),
            usage=_usage(content.get("usage")),
            finish_reason=_string(choice.get("finish_reason")),
        )


def _response_format(schema: Mapping[str, Any], settings: EndpointSettings) -> dict[str, Any]:
    if settings.json_mode == "object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


def _first(choices: object) -> dict[str, Any]:
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _text(content: object) -> str:
    """Return a text, or the joined texts of a list of parts."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    return Usage.of(value.get("prompt_tokens"), value.get("completion_tokens"), value.get("total_tokens"))


class OllamaStyle:
    """Requests and answers of Ollama's protocol; streams are JSON lines."""

    def url(self, base: str) -> str:
        """Return the URL of questions."""
        return ollama_base(base).route("/api/chat")

    def body(self, question: Question, settings: EndpointSettings) -> dict[str, Any]:
        """Return the body of a request."""
        options = {_OLLAMA_OPTIONS.get(name, name): value for name, value in question.options.items()}
        if settings.threads is not None:
            options.setdefault("num_thread", settings.threads)
        body: dict[str, Any] = {name: options.pop(name) for name in _OLLAMA_FIELDS & options.keys()}
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
        """Return True: a whole answer is one line of a stream, too."""
        del content_type
        return True

    def payload(self, line: bytes) -> bytes | None:
        """Return the data of a line."""
        return line.strip() or None

    def is_end(self, payload: bytes) -> bool:
        """Return False: the last piece says itself that it is the last."""
        del payload
        return False

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """Return a line of a stream, or a whole answer."""
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


STYLES: dict[str, ChatStyle] = {"openai": OpenAIStyle(), "ollama": OllamaStyle()}
