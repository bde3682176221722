"""OpenAI's protocol (`/v1/chat/completions`): vLLM, LiteLLM, llama-server, OpenAI, Ollama's own copy of it.

Source: OpenAI's API reference, chat completions; server-sent events as in the HTML standard.
"""

from collections.abc import Mapping
from typing import Any

from citadel_common.errors import LlmRefused
from citadel_common.settings.llm import EndpointSettings
from citadel_orchestration.llm.question import Piece, Question, Usage

STREAM_TYPE = "text/event-stream"
_OPTION_NAMES = {"num_predict": "max_tokens"}
_DONE = b"[DONE]"


class OpenAIStyle:
    """Requests and answers of OpenAI's protocol; a base URL may end in `/v1` or not."""

    def url(self, base: str) -> str:
        """Where questions go."""
        stem = base if base.endswith("/v1") else f"{base}/v1"
        return f"{stem}/chat/completions"

    def body(self, question: Question, settings: EndpointSettings) -> dict[str, Any]:
        """The request."""
        body = {_OPTION_NAMES.get(name, name): value for name, value in question.options.items()}
        body |= {"model": question.model or settings.model, "messages": question.wire_messages()}
        if settings.stream:
            body["stream"] = True
        if settings.stream and settings.stream_usage:
            body["stream_options"] = {"include_usage": True}
        if question.schema is not None and settings.json_mode != "prompt":
            body["response_format"] = _response_format(question.schema, settings)
        return body

    def is_stream(self, content_type: str) -> bool:
        """Whether the answer is a stream: servers that cannot stream answer in one piece, asked or not."""
        return content_type.startswith(STREAM_TYPE)

    def payload(self, line: bytes) -> bytes | None:
        """The data of a line of a stream; None for comments, other fields and blank lines."""
        return line[5:].strip() if line.startswith(b"data:") else None

    def is_end(self, payload: bytes) -> bool:
        """Whether a payload only says that the stream is over."""
        return payload == _DONE

    def piece(self, content: Mapping[str, Any]) -> Piece:
        """A chunk of a stream, or a whole answer.

        Raises:
            LlmRefused: The model declined.
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
    """Text, or the texts of a list of parts."""
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    return Usage.of(value.get("prompt_tokens"), value.get("completion_tokens"), value.get("total_tokens"))
