"""`llm_query`: asks an LLM; with a schema, until the answer is JSON that fits it."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar, Protocol

import orjson
from pydantic import AliasChoices, Field

from citadel_common.deadline import Deadline
from citadel_common.errors import BadLlmOutput, InvalidInput
from citadel_orchestration.definition.template import holds_expression
from citadel_orchestration.llm.output_schema import OutputSchema, schema_problems
from citadel_orchestration.llm.question import RESERVED_OPTIONS, Answer, Question, Usage, conversation, correction
from citadel_orchestration.step_types import (
    Catalog,
    Execute,
    Finding,
    Output,
    Parameters,
    StepEffect,
    StepType,
)

_FENCE = "```"


class LlmClient(Protocol):
    """The part of the LLM endpoints that the type needs; see `LlmClients`."""

    async def ask(self, endpoint: str | None, question: Question, deadline: Deadline) -> Answer:
        """Return the model's answer."""


class LlmQueryParameters(Parameters):
    """Parameters of `llm_query`."""

    query: str = Field(min_length=1, description="The question")
    context: str | dict[str, Any] | list[Any] | None = Field(
        None, description="What the question is about, put before it; long lists of numbers are left out"
    )
    system: str | None = Field(None, description="What the model is told first")
    endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("endpoint", "service_endpoint"),
        description="Name of an endpoint, or the URL of a configured one; default: the default endpoint",
    )
    model: str | None = Field(None, min_length=1, description="Model; default: the endpoint's")
    options: dict[str, Any] = Field(default_factory=dict, description="Passed on: temperature, max_tokens, …")
    response_schema: dict[str, Any] | None = Field(None, description="JSON Schema that the answer must fit")
    schema_retries: int = Field(2, ge=0, le=5, description="Times the model is asked again when it does not")


class LlmQuery(StepType[LlmQueryParameters]):
    """Output: the model's `text`; `json`, its value (null without a schema); `usage` of all calls of the step."""

    name: ClassVar[str] = "llm_query"
    parameters = LlmQueryParameters
    outputs: ClassVar[frozenset[str]] = frozenset({"text", "json", "usage", "model", "endpoint", "finish_reason"})

    calls: ClassVar[str | None] = "llm"

    def __init__(self, llm: LlmClient) -> None:
        self._llm = llm

    def check(self, raw: Mapping[str, Any], catalog: Catalog) -> Iterator[Finding]:
        """Yield unknown endpoints, options that cannot be set, and schemas that cannot be used."""
        yield from _endpoint_problems(raw, catalog)
        options = raw.get("options")
        if isinstance(options, dict):
            yield from (
                (f"/options/{name}", "cannot be set here") for name in sorted(RESERVED_OPTIONS & options.keys())
            )
        schema = raw.get("response_schema")
        if isinstance(schema, dict) and not holds_expression(schema):
            yield from ((f"/response_schema{pointer}", problem) for pointer, problem in schema_problems(schema))

    def begin(self, parameters: LlmQueryParameters) -> StepEffect:
        """Ask the LLM."""
        return Execute(run=lambda call: self._ask(parameters, call.deadline))

    async def _ask(self, parameters: LlmQueryParameters, deadline: Deadline) -> Output:
        """Ask; with a schema, ask again while the answer does not fit it.

        Raises:
            InvalidInput: The endpoint, the options or the schema cannot be used.
            LlmUnavailable: The endpoint does not answer.
            LlmRefused: The endpoint refuses.
            BadLlmOutput: No answer fitted the schema.
        """
        question = Question(
            messages=conversation(
                parameters.query,
                system=parameters.system,
                context=parameters.context,
                schema=parameters.response_schema,
            ),
            model=parameters.model,
            options=parameters.options,
            schema=parameters.response_schema,
        )
        if parameters.response_schema is None:
            answer = await self._llm.ask(parameters.endpoint, question, deadline)
            return _output(answer, None, answer.usage)
        return await self._ask_for_json(parameters, question, deadline)

    async def _ask_for_json(self, parameters: LlmQueryParameters, question: Question, deadline: Deadline) -> Output:
        schema = _usable(parameters.response_schema or {})
        usage = Usage()
        problems: list[str] = []
        for _ in range(1 + parameters.schema_retries):
            answer = await self._llm.ask(parameters.endpoint, question, deadline)
            usage += answer.usage
            value, problems = await asyncio.to_thread(_read, answer, schema)
            if not problems:
                return _output(answer, value, usage)
            question = replace(question, messages=question.messages + correction(answer.text, problems))
        raise BadLlmOutput(
            f"the LLM's answer does not fit the schema, asked {1 + parameters.schema_retries} times: {problems[0]}"
        )


def _endpoint_problems(raw: Mapping[str, Any], catalog: Catalog) -> Iterator[Finding]:
    if "endpoint" in raw and "service_endpoint" in raw:
        yield "/service_endpoint", "is another name of endpoint; give one of them"
    for field in ("endpoint", "service_endpoint"):
        name = raw.get(field)
        problem = catalog.endpoint_problem(name) if isinstance(name, str) and not holds_expression(name) else None
        if problem is not None:
            yield f"/{field}", problem


def _usable(schema: Mapping[str, Any]) -> OutputSchema:
    for pointer, problem in schema_problems(schema):
        raise InvalidInput.at(f"response_schema{pointer}", problem)
    return OutputSchema(schema)


def _read(answer: Answer, schema: OutputSchema) -> tuple[object, list[str]]:
    """Return the answer's JSON value, and what is wrong with it."""
    try:
        value = orjson.loads(_unfenced(answer.text))
    except orjson.JSONDecodeError as error:
        cut = "it was cut off at the token limit, be shorter; " if answer.finish_reason == "length" else ""
        return None, [f"{cut}it is not JSON: {error}"]
    return value, schema.problems(value)


def _unfenced(text: str) -> str:
    """Return the text without the Markdown fence that many models put around JSON."""
    bare = text.strip()
    if not (bare.startswith(_FENCE) and bare.endswith(_FENCE)):
        return bare
    return bare.removeprefix(_FENCE).removeprefix("json").removesuffix(_FENCE)


def _output(answer: Answer, value: object, usage: Usage) -> Output:
    return {
        "text": answer.text,
        "json": value,
        "usage": asdict(usage),
        "model": answer.model,
        "endpoint": answer.endpoint,
        "finish_reason": answer.finish_reason,
    }
