"""Questions, read from the forms of OpenAI and Ollama, and the answers of a healthy double."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from tests.doubles.base.answers import model_missing, read_json
from tests.doubles.base.refusals import refuse
from tests.support.planted import COMPLETION

_MARKER = re.compile(r"\[\[(\w+)\]\]")
_SAY = re.compile(r"\[\[say (.*?)\]\]", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRequest:
    """One question.

    `prompt` is the last message of the user, `schema` the JSON Schema asked for, or True where any JSON will do,
    `most_tokens` the length of its answer at most, and `openai` its form.
    """

    openai: bool
    model: str
    messages: Sequence[Mapping[str, Any]]
    prompt: str
    stream: bool
    usage_in_stream: bool
    schema: Mapping[str, Any] | bool
    most_tokens: int | None
    payload: Mapping[str, Any]

    @property
    def marker(self) -> str | None:
        """The mode that the prompt asks for by `[[mode]]`."""
        found = _MARKER.search(self.prompt)
        return found[1] if found else None


def read_chat(body: bytes, installed: Sequence[str], *, openai: bool) -> ChatRequest:
    """Return the question of a `POST /v1/chat/completions` or `/api/chat`, or refuse as the servers do.

    Without a list of models any name is one.
    """
    data = read_json(body)
    model = str(data.get("model") or "")
    if not model:
        raise refuse(400, "model is required")
    if installed and model.removesuffix(":latest") not in installed:
        raise model_missing(model)
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise refuse(400, "[] is too short - 'messages'")
    users = [message["content"] for message in messages if message["role"] == "user"]
    return ChatRequest(
        openai=openai,
        model=model,
        messages=messages,
        prompt=users[-1] if users else "",
        stream=bool(data.get("stream", not openai)),
        usage_in_stream=not openai or bool((data.get("stream_options") or {}).get("include_usage")),
        schema=_openai_schema(data) if openai else _ollama_schema(data),
        most_tokens=_most_tokens(data) if openai else _num_predict(data.get("options") or {}),
        payload={name: value for name, value in data.items() if name != "messages"},
    )


def _most_tokens(data: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        found = data.get(name)
        if isinstance(found, int) and found < -1:
            raise refuse(400, f"Field '{name}': Value must be between -1 <= value <= 2147483647, but got {found}")
        if isinstance(found, int) and found >= 0:
            return found
    return None


def _num_predict(options: Mapping[str, Any]) -> int | None:
    found = options.get("num_predict")
    if found is not None and not isinstance(found, int):
        raise refuse(500, 'option "num_predict" must be of type integer')
    return None if found is None or found < 0 else found


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and isinstance(message.get("content"), str) and "role" in message


def _openai_schema(data: Mapping[str, Any]) -> Mapping[str, Any] | bool:
    wanted = data.get("response_format") or {}
    kind = wanted.get("type", "text")
    if kind not in {"text", "json_object", "json_schema"}:
        raise refuse(400, f"Invalid value: '{kind}'. Supported values are: 'json_object', 'json_schema', and 'text'.")
    return wanted["json_schema"]["schema"] if kind == "json_schema" else kind == "json_object"


def _ollama_schema(data: Mapping[str, Any]) -> Mapping[str, Any] | bool:
    wanted = data.get("format")
    if wanted not in (None, "", "json") and not isinstance(wanted, dict):
        shown = orjson.dumps(wanted).decode()
        raise refuse(500, f'invalid format: {shown!r}; expected "json" or a valid JSON Schema object')
    return wanted if isinstance(wanted, dict) else bool(wanted)


def healthy_text(request: ChatRequest) -> str:
    """Return what a healthy double says: `[[say …]]` of the prompt, JSON where asked for, else `expected_answer`."""
    said = _SAY.search(request.prompt)
    if said:
        return said[1]
    if request.schema is True:
        return orjson.dumps({"answer": expected_answer(request.prompt)}).decode()
    if request.schema:
        return orjson.dumps(_fitting(request.schema, request.schema)).decode()
    return expected_answer(request.prompt)


def expected_answer(prompt: str) -> str:
    """Return the answer to a prompt: a word that only this prompt gets, marked, and an echo of its beginning."""
    return f"{blake2b(prompt.encode(), digest_size=4).hexdigest()}-{COMPLETION} answers: {prompt[:200]}"


def count_tokens(text: str) -> int:
    """Return the tokens of a text, as the double counts: words."""
    return len(text.split())


def prompt_tokens(request: ChatRequest) -> int:
    """Return the tokens of all messages."""
    return sum(count_tokens(message["content"]) for message in request.messages)


def _fitting(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """Return a small value that fits the usual schemas."""
    if "$ref" in schema:
        return _fitting(_lookup(schema["$ref"], root), root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _fitting(schema[key][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, root)


def _lookup(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found[part]
    return found  # type: ignore[no-any-return]


def _of_type(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    if kind == "object":
        return {name: _fitting(below, root) for name, below in schema.get("properties", {}).items()}
    if kind == "array":
        return [_fitting(schema.get("items", {}), root) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    return {"boolean": True, "null": None}.get(kind, "text")
