"""The words around a question: context before it, how JSON is asked for, and what was wrong with an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from citadel_common.errors import InvalidInput
from citadel_orchestration.llm.question import Message

_LONGEST_NUMBERS = 32
_DEEPEST = 64
_QUOTE_LIMIT = 4000


def conversation(
    query: str, *, system: str | None, context: object = None, schema: Mapping[str, Any] | None = None
) -> tuple[Message, ...]:
    """The messages of a question.

    Args:
        query: What is asked.
        system: What the model is told first.
        context: What the question is about: text, or JSON values; nothing is added for empty ones.
        schema: JSON Schema that the answer shall fit. It stands in the prompt even where the server enforces it:
            models answer better when they have seen it.
    """
    orders = [system] if system else []
    if schema is not None:
        orders.append(f"Answer with JSON only, no other text, that fits this JSON Schema:\n{_json(schema)}")
    told = (Message(role="system", content="\n\n".join(orders)),) if orders else ()
    return (*told, Message(role="user", content=_with_context(query, context)))


def correction(text: str, problems: Sequence[str]) -> tuple[Message, Message]:
    """The model's bad answer, and what to tell it."""
    said = text if len(text) <= _QUOTE_LIMIT else f"{text[:_QUOTE_LIMIT]}…"
    reasons = "\n".join(f"- {problem}" for problem in problems)
    order = f"This answer cannot be used:\n{reasons}\nAnswer again, with JSON only, that fits the schema."
    return Message(role="assistant", content=said), Message(role="user", content=order)


def _with_context(query: str, context: object) -> str:
    if not context:
        return query
    text = context if isinstance(context, str) else _json(without_vectors(context))
    return f"Context:\n{text}\n\n{query}"


def without_vectors(value: object, depth: int = 0) -> object:
    """JSON values, where long lists of numbers became a note: a model can do nothing with an embedding."""
    if depth > _DEEPEST:
        raise InvalidInput.at("context", f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        return {name: without_vectors(item, depth + 1) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    if len(value) >= _LONGEST_NUMBERS and all(isinstance(item, (int, float)) for item in value):
        return f"[{len(value)} numbers]"
    return [without_vectors(item, depth + 1) for item in value]


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise InvalidInput.at("context", f"cannot be written as JSON: {error}") from None
