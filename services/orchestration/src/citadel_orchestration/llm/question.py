"""Questions to an LLM and its answers, and the wording of prompts: context, schemas, corrections."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

from citadel_common.errors import InvalidInput

Role = Literal["system", "user", "assistant"]

RESERVED_OPTIONS = frozenset(
    {
        "model", "messages", "prompt", "stream", "stream_options", "n",
        "response_format", "format", "tools", "tool_choice", "functions",
    }
)  # fmt: skip
"""Fields of a request that options cannot set: Citadel sets them, or could not read what came back."""
_MOST_TOKENS = 2**53
_LONGEST_NUMBERS = 32
_DEEPEST = 64
_QUOTE_LIMIT = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A conversation that the model is to continue.

    Attributes:
        messages: Its turns, oldest first.
        model: Name of the model; None for the endpoint's own.
        options: Passed on to the server (temperature, max_tokens, seed, …); none of `RESERVED_OPTIONS`.
        schema: JSON Schema that the server is asked to enforce; None for plain text.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: Mapping[str, Any] | None = None

    @property
    def characters(self) -> int:
        """Characters of all messages together."""
        return sum(len(message.content) for message in self.messages)

    def wire_messages(self) -> list[dict[str, str]]:
        """Return the messages as both protocols write them."""
        return [asdict(message) for message in self.messages]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens as the server counted them; 0 if it does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
        )

    @classmethod
    def of(cls, prompt: object, completion: object, total: object = None) -> "Usage":
        """Return the usage of a response: anything that is not a count is 0, and a missing total is the sum."""
        counts = [_count(prompt), _count(completion)]
        return cls(prompt_tokens=counts[0], completion_tokens=counts[1], total_tokens=_count(total) or sum(counts))


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Answer of a model.

    Attributes:
        text: Text of the answer.
        endpoint: Name of the endpoint that was asked.
        model: Name of the model, as the server gives it.
        usage: Tokens of this call.
        finish_reason: Why it ended: `stop`, `length`, or the server's own word.
        reasoning: What the model wrote before it answered.
        tool_calls: Names of the tools that it wanted to be called.
        dropped_options: Options that the server does not know, left out.
    """

    text: str
    endpoint: str
    model: str
    usage: Usage
    finish_reason: str
    reasoning: str = ""
    tool_calls: tuple[str, ...] = ()
    dropped_options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of an answer, or a whole one; fields that it does not have are None.

    Attributes:
        text: Text to append.
        reasoning: Reasoning to append.
        refusal: Words of a model that declines, to append.
        tool_calls: Names of tools that the model wants to be called.
        model: Name of the model.
        usage: Tokens of the whole call.
        finish_reason: Why the text has ended; None before its end.
        last: True if nothing comes after this part.
        is_whole: True if it is the whole answer, and not a part to append.
    """

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[str, ...] = ()
    model: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    last: bool = False
    is_whole: bool = False


def conversation(
    query: str, *, system: str | None, context: object = None, schema: Mapping[str, Any] | None = None
) -> tuple[Message, ...]:
    """Return the messages of a question.

    Args:
        query: The question.
        system: System prompt.
        context: Facts to answer from, as text or JSON values; empty ones add nothing.
        schema: JSON Schema that the answer must fit. It is in the prompt even if the server enforces it, since models
            answer better when they have seen it.
    """
    orders = [system] if system else []
    if schema is not None:
        orders.append(f"Answer with JSON only, no other text, that fits this JSON Schema:\n{_json(schema)}")
    head = (Message(role="system", content="\n\n".join(orders)),) if orders else ()
    return (*head, Message(role="user", content=_with_context(query, context)))


def correction(text: str, problems: Sequence[str]) -> tuple[Message, Message]:
    """Return the model's bad answer and the message that asks for a better one."""
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
    """Return JSON values with a note in place of long lists of numbers: a model can do nothing with an embedding."""
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
