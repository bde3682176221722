"""Spans of questions to LLMs, by the GenAI conventions."""

from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import orjson
from opentelemetry.trace import Span

from citadel_common.settings.llm import EndpointSettings
from citadel_common.telemetry import spans, tracing
from citadel_orchestration.llm.question import Answer, Question


def chat_span(question: Question, settings: EndpointSettings) -> AbstractContextManager[Span]:
    """Return the span of one call, which includes the wait for a free place; it follows the GenAI conventions."""
    if not tracing.is_on():
        return tracing.span(spans.CHAT)
    model, address = question.model or settings.model, urlsplit(settings.url)
    about = {
        spans.GEN_AI_OPERATION: "chat",
        spans.GEN_AI_PROVIDER: settings.style,
        spans.GEN_AI_MODEL: model,
        spans.SERVER_ADDRESS: address.hostname,
        spans.SERVER_PORT: address.port,
        spans.GEN_AI_INPUT: _input(question) if tracing.captures_content() else None,
    }
    return tracing.span(spans.CHAT, model, about)


def note_answer(span: Span, answer: Answer) -> None:
    """Add the attributes of the model's answer to the span."""
    if not span.is_recording():
        return
    span.set_attribute(spans.GEN_AI_ANSWERED_BY, answer.model)
    span.set_attribute(spans.GEN_AI_INPUT_TOKENS, answer.usage.prompt_tokens)
    span.set_attribute(spans.GEN_AI_OUTPUT_TOKENS, answer.usage.completion_tokens)
    span.set_attribute(spans.GEN_AI_FINISH, [answer.finish_reason])
    if tracing.captures_content():
        said = [{"role": "assistant", "parts": [{"type": "text", "content": answer.text}]}]
        span.set_attribute(spans.GEN_AI_OUTPUT, orjson.dumps(said).decode())


def _input(question: Question) -> str:
    asked = [
        {"role": message.role, "parts": [{"type": "text", "content": message.content}]} for message in question.messages
    ]
    return orjson.dumps(asked).decode()
