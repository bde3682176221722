"""`llm_query`: asks an LLM; with a schema, until the answer is JSON that fits it."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar, Protocol

from pydantic import AliasChoices, Field

from citadel_common.deadline import Deadline
from citadel_common.errors import BadLlmOutput, InvalidInput
from citadel_orchestration.definition.template import holds_expression
from citadel_orchestration.llm.json_values import value_in
from citadel_orchestration.llm.output_schema import OutputSchema, schema_problems
from citadel_orchestration.llm.question import RESERVED_OPTIONS, Answer, Question, Usage, conversation, correction
from citadel_orchestration.step_types import (
    Catalog,
    Execute,
    Finding,
    Output,
    Parameters,
    Resource,
    StepCall,
    StepEffect,
    StepType,
)

_REASONING_LIMIT = 20_000
"""Characters of reasoning in an output."""


class LlmClient(Protocol):
    """The part of the LLM endpoints that the type needs; see `LlmClients`."""

    async def ask(
        self, endpoint: str | None, question: Question, deadline: Deadline, accepted: Callable[[], None]
    ) -> Answer:
        """Return the model's answer."""

    def resource(self, endpoint: str | None) -> Resource | None:
        """Return what a question to an endpoint uses."""


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
    max_calls: int = Field(8, ge=1, le=100, description="Answers that the step may ask for, all its attempts together")
    allow_empty: bool = Field(False, description="Whether an answer without text is a success")


class LlmQuery(StepType[LlmQueryParameters]):
    """Output: the model's `text`, without its `reasoning`; `json`, its value (null without a schema).

    `usage` has the tokens of the attempt, `calls` the answers of all attempts, and `dropped_options` the options that
    the server does not know.
    """

    name: ClassVar[str] = "llm_query"
    parameters = LlmQueryParameters
    outputs: ClassVar[frozenset[str]] = frozenset(
        {"text", "json", "usage", "model", "endpoint", "finish_reason", "reasoning", "calls", "dropped_options"}
    )

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
        return Execute(
            run=lambda call: self._ask(parameters, call), uses=lambda: self._llm.resource(parameters.endpoint)
        )

    async def _ask(self, parameters: LlmQueryParameters, call: StepCall) -> Output:
        """Ask; with a schema, ask again while the answer does not fit it.

        Raises:
            InvalidInput: The endpoint, the options or the schema cannot be used.
            PayloadTooLarge: The question is too long.
            LlmUnavailable: The endpoint does not answer.
            LlmRefused: The endpoint refuses.
            BadLlmOutput: There was no answer, no answer fitted the schema, or no call is left.
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
            answer = await self._asked(parameters, question, call)
            if not (answer.text or parameters.allow_empty):
                raise _empty(answer)
            return _output(answer, None, answer.usage, call)
        return await self._ask_for_json(parameters, question, call)

    async def _asked(self, parameters: LlmQueryParameters, question: Question, call: StepCall) -> Answer:
        """Make one call, if the step may make one more."""
        if call.calls.made >= parameters.max_calls:
            raise _final(f"the step has made its {parameters.max_calls} calls (max_calls) without a usable answer")
        return await self._llm.ask(parameters.endpoint, question, call.deadline, call.calls.add)

    async def _ask_for_json(self, parameters: LlmQueryParameters, question: Question, call: StepCall) -> Output:
        schema = _usable(parameters.response_schema or {})
        usage = Usage()
        problems: list[str] = []
        times = min(1 + parameters.schema_retries, max(1, parameters.max_calls - call.calls.made))
        for _ in range(times):
            answer = await self._asked(parameters, question, call)
            usage += answer.usage
            value, problems = await asyncio.to_thread(_read, answer, schema)
            if not problems:
                return _output(answer, value, usage, call)
            question = replace(question, messages=question.messages + correction(answer.text, problems))
        raise _final(f"the LLM's answer does not fit the schema, asked {times} times: {problems[0]}")


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


def _final(message: str) -> BadLlmOutput:
    """Return an error that another attempt of the step would only repeat, at the same price."""
    error = BadLlmOutput(message)
    error.retryable = False
    return error


def _empty(answer: Answer) -> BadLlmOutput:
    """Return why an answer without text is not one. Only if the model could have said something is it asked again."""
    where = f"LLM endpoint {answer.endpoint!r}"
    if answer.finish_reason == "length":
        spent = f"; it wrote {len(answer.reasoning)} characters of reasoning" if answer.reasoning else ""
        return _final(f"{where} used up its tokens before it answered{spent}: raise max_tokens in options")
    if answer.tool_calls:
        return _final(f"{where} asks for tools ({', '.join(answer.tool_calls)}) and has no text: the step offers none")
    what = "only reasoning" if answer.reasoning else "no text"
    return BadLlmOutput(f"{where} answered with {what} ({answer.finish_reason}); allow_empty accepts that")


def _read(answer: Answer, schema: OutputSchema) -> tuple[object, list[str]]:
    """Return the answer's JSON value, and what is wrong with it."""
    value, problems = value_in(answer.text, schema.problems)
    if problems and answer.finish_reason == "length":
        problems[0] = f"it was cut off at the token limit, be shorter; {problems[0]}"
    elif problems and not answer.text:
        problems[0] = _empty(answer).message
    return value, problems


def _output(answer: Answer, value: object, usage: Usage, call: StepCall) -> Output:
    return {
        "text": answer.text,
        "json": value,
        "usage": asdict(usage),
        "model": answer.model,
        "endpoint": answer.endpoint,
        "finish_reason": answer.finish_reason,
        "reasoning": answer.reasoning[:_REASONING_LIMIT] or None,
        "calls": call.calls.made,
        "dropped_options": list(answer.dropped_options),
    }
