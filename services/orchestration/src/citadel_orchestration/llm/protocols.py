"""The protocols of LLM servers: OpenAI's chat completions, and Ollama's own.

Sources: OpenAI's API reference, chat completions; server-sent events as in the HTML standard; Ollama's API
documentation and server code, August 2026.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from citadel_common.settings.llm import EndpointSettings
from citadel_contracts.base_urls import ollama_base, openai_base
from citadel_orchestration.llm.question import Piece, Question, Usage

_OPENAI_OPTIONS = {"num_predict": "max_tokens"}
_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_text")
_OLLAMA_OPTIONS = {"max_tokens": "num_predict", "max_completion_tokens": "num_predict"}
_OLLAMA_FIELDS = frozenset({"keep_alive", "think"})


class ChatStyle(Protocol):
    """Requests and answers of one protocol."""

    def url(self, base: str) -> str:
        """Return the URL of questions."""

    def body(self, question: Question, settings: EndpointSettings) -> dict[str, Any]:
        """Return the body of a request."""

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

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """Return a chunk of a stream, or a whole answer."""
        choice = _first(content.get("choices"))
        delta, message = choice.get("delta"), choice.get("message")
        words = delta if isinstance(delta, dict) and delta else message if isinstance(message, dict) else {}
        return Piece(
            text=_text(words.get("content")) or _text(choice.get("text")),
            reasoning=_reasoning(words),
            refusal=_text(words.get("refusal")) or _refusal(words.get("content")),
            tool_calls=_tool_calls(words),
            model=_string(content.get("model")),
            usage=_usage(content.get("usage")),
            finish_reason=_string(choice.get("finish_reason")),
            is_whole=isinstance(message, dict) and words is message,
        )


def _response_format(schema: Mapping[str, Any], settings: EndpointSettings) -> dict[str, Any]:
    if settings.json_mode == "object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


def _first(choices: object) -> dict[str, Any]:
    choice = choices[0] if isinstance(choices, list) and choices else None
    return choice if isinstance(choice, dict) else {}


def _text(content: object) -> str:
    """Return a text, or the joined texts of a list of parts, without those of reasoning."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if _is_said(part))
    return content if isinstance(content, str) else ""


def _is_said(part: object) -> bool:
    return isinstance(part, dict) and not _is_reasoning(part)


def _is_reasoning(part: Mapping[str, Any]) -> bool:
    return str(part.get("type")).startswith(("thinking", "reasoning", "summary"))


def _reasoning(words: Mapping[str, Any]) -> str:
    """Return the reasoning beside a text: each server has a name of its own for it; some send it under two."""
    for name in _REASONING:
        if isinstance(words.get(name), str) and words[name]:
            return str(words[name])
    parts = words.get("content")
    thoughts = (
        [part for part in parts if isinstance(part, dict) and _is_reasoning(part)] if isinstance(parts, list) else []
    )
    return "".join(_text(part.get("thinking")) or _text(part.get("text")) for part in thoughts)


def _refusal(content: object) -> str:
    parts = content if isinstance(content, list) else []
    return "".join(_text(part.get("refusal")) for part in parts if isinstance(part, dict))


def _tool_calls(words: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the tools that the model wants to be called; a chunk with more arguments has none."""
    calls = words.get("tool_calls")
    wanted = [*(calls if isinstance(calls, list) else []), {"function": words.get("function_call")}]
    functions = [call.get("function") for call in wanted if isinstance(call, dict)]
    names = [function.get("name") for function in functions if isinstance(function, dict)]
    return tuple(name for name in names if isinstance(name, str) and name)


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

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """Return a line of a stream, or a whole answer."""
        said = content.get("message")
        message = said if isinstance(said, dict) else {}
        done = content.get("done") is True
        return Piece(
            text=_text(message.get("content")) or _text(content.get("response")),
            reasoning=_reasoning(message) or _text(content.get("thinking")),
            tool_calls=_tool_calls(message),
            model=_string(content.get("model")),
            usage=Usage.of(content.get("prompt_eval_count"), content.get("eval_count")) if done else None,
            finish_reason=str(content.get("done_reason") or "stop") if done else None,
            last=done,
        )


STYLES: dict[str, ChatStyle] = {"openai": OpenAIStyle(), "ollama": OllamaStyle()}
