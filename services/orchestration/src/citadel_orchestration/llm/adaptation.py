"""Parts of requests that a server refuses: found in its words, left out or renamed, and remembered.

Sources: OpenAI (`unsupported_parameter`, `unsupported_value`, `unknown_parameter`); Azure, Fireworks, Mistral and vLLM
("Extra inputs are not permitted"); DeepSeek, Groq, LM Studio and llama.cpp on `response_format`; Ollama on `format`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

from citadel_common.settings.llm import EndpointSettings
from citadel_orchestration.llm.question import Question
from citadel_orchestration.llm.refusals import ServerError

MOST_PER_QUESTION = 6
"""Times one question is put differently."""
_MOST_MODELS = 256
_REFUSALS = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        HTTPStatus.NOT_IMPLEMENTED,
    }
)
_UNKNOWN = re.compile(
    r"unsupported|not support|n't support|not permitted|not allowed|unrecogni[sz]ed|unknown|unexpected|not available"
    r"|unavailable|deprecated|not implemented|forbidden|no longer|not valid for this model",
    re.IGNORECASE,
)
_FORMAT = re.compile(
    r"response_?format|json_schema|json_object|json mode|structured outputs?|grammar|invalid format", re.IGNORECASE
)
_SCHEMA = re.compile(
    r"invalid schema|schema error|json schema (?:is )?(?:invalid|conversion)|parse grammar|grammar", re.IGNORECASE
)
_MODES: tuple[Literal["schema", "object", "prompt"], ...] = ("schema", "object", "prompt")
_RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_DROPPABLE = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "repeat_penalty",
    "repetition_penalty", "seed", "logit_bias", "logprobs", "top_logprobs", "user", "keep_alive", "think",
    "reasoning_effort", "parallel_tool_calls", "store", "metadata", "service_tier",
)  # fmt: skip
"""Options without which the question is still the same. Others, such as `stop`, are never left out."""


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How requests to one model of an endpoint differ from what was configured and asked.

    Attributes:
        json_mode: How JSON is asked for; None as configured.
        stream: False if the server cannot stream.
        stream_usage: False if a stream cannot be asked for token counts.
        renamed: New names of options.
        dropped: Options that are left out.
    """

    json_mode: Literal["schema", "object", "prompt"] | None = None
    stream: bool = True
    stream_usage: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()

    def settings(self, settings: EndpointSettings) -> EndpointSettings:
        """Return the settings that such a request follows."""
        stream, usage = settings.stream and self.stream, settings.stream_usage and self.stream_usage
        mode = self.json_mode or settings.json_mode
        if (stream, usage, mode) == (settings.stream, settings.stream_usage, settings.json_mode):
            return settings
        return settings.model_copy(update={"stream": stream, "stream_usage": usage, "json_mode": mode})

    def question(self, question: Question) -> Question:
        """Return a question with the options that the server knows."""
        if not (self.dropped or self.renamed):
            return question
        kept = {name: value for name, value in question.options.items() if name not in self.dropped}
        return replace(question, options={self.renamed.get(name, name): value for name, value in kept.items()})

    def dropped_of(self, question: Question) -> tuple[str, ...]:
        """Return the options of a question that are left out."""
        return tuple(sorted(self.dropped & question.options.keys()))


class Adaptations:
    """What an endpoint was found to refuse, by model."""

    def __init__(self) -> None:
        self._by_model: dict[str, Adaptation] = {}

    def of(self, model: str) -> Adaptation:
        """Return what is known of a model."""
        return self._by_model.get(model, Adaptation())

    def remember(self, model: str, adaptation: Adaptation) -> None:
        """Use an adaptation for later questions."""
        if len(self._by_model) >= _MOST_MODELS:
            self._by_model.clear()
        self._by_model[model] = adaptation


def adapted(
    now: Adaptation, status: int, error: ServerError, body: Mapping[str, Any], json_mode: str
) -> tuple[Adaptation, bool] | None:
    """Return how the question can be put after a refusal, and whether to remember it; None if the answer names no way.

    Args:
        now: How it was put.
        status: HTTP status of the refusal.
        error: The refusal.
        body: What was sent.
        json_mode: How JSON was asked for.
    """
    if status not in _REFUSALS:
        return None
    if json_mode != "prompt" and _names_format(error, body):
        mode = _MODES[_MODES.index(json_mode) + 1]
        return replace(now, json_mode=mode), not _SCHEMA.search(error.message)
    if not (_UNKNOWN.search(error.message) or _UNKNOWN.search(error.code)):
        return None
    changed = _without(now, error, body)
    return None if changed is None else (changed, True)


def _names_format(error: ServerError, body: Mapping[str, Any]) -> bool:
    asked = "response_format" in body or "format" in body
    return asked and _FORMAT.search(f"{error.param or ''} {error.message}") is not None


def _without(now: Adaptation, error: ServerError, body: Mapping[str, Any]) -> Adaptation | None:
    """Return an adaptation without the field that the refusal names, if one can do without it."""
    sent = {**body, **(body["options"] if isinstance(body.get("options"), dict) else {})}
    named = [
        name for name in ("stream_options", *_RENAMED, *_DROPPABLE, "stream") if name in sent and _is_named(name, error)
    ]
    if not named:
        return None
    name = named[0]
    if name == "stream_options":
        return replace(now, stream_usage=False)
    if name == "stream":
        return replace(now, stream=False)
    if name in _RENAMED:
        renamed = {} if name in now.renamed.values() else {name: _RENAMED[name]}
        return replace(now, renamed=renamed) if renamed else None
    return replace(now, dropped=now.dropped | {name})


def _is_named(name: str, error: ServerError) -> bool:
    if error.param is not None:
        return error.param == name
    found = re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", error.message)
    stream = name == "stream" and re.search(r"support stream", error.message, re.IGNORECASE)
    return bool(found or stream)
