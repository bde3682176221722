"""A checked definition, ready to run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from citadel_common.errors import InvalidDefinition
from citadel_orchestration.definition import models
from citadel_orchestration.definition.expressions.syntax import Uses
from citadel_orchestration.definition.models import read_duration
from citadel_orchestration.definition.template import Condition, References, Template
from citadel_orchestration.step_types import StepType, StepTypes


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a step is tried.

    Attributes:
        max_attempts: Attempts in all, the first one included.
        delay: Seconds before the second attempt.
        factor: Growth of the delay per attempt.
        max_delay: Seconds; longest delay.
    """

    max_attempts: int
    delay: float
    factor: float
    max_delay: float


@dataclass(frozen=True, kw_only=True)
class Concurrency:
    """At most `limit` runs with the same key at once."""

    key: str
    limit: int


class ForEach(NamedTuple):
    """Items of a step that runs once per item, and how many run at once."""

    items: Template
    max_parallel: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        step_id: Name of the step.
        index: Place in the definition, from 0.
        type: Step type.
        parameters: Template of the parameters.
        depends_on: Steps that come first.
        dependents: Steps that depend on it.
        when: Condition; None if the step always runs.
        for_each: Items; None if the step runs once.
        on_error: `fail` fails the run, `continue` does not.
        timeout: Seconds; of one attempt, while it runs.
        start_timeout: Seconds; of its waits for the start of an attempt.
        retry: How often it is tried.
        references: Steps and context that its parameters, condition and items read.
    """

    step_id: str
    index: int
    type: StepType[Any]
    parameters: Template
    depends_on: tuple[str, ...]
    dependents: tuple[str, ...]
    when: Condition | None
    for_each: ForEach | None
    on_error: Literal["fail", "continue"]
    timeout: float
    start_timeout: float
    retry: RetryPolicy
    references: References


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A whole definition.

    Attributes:
        raw: As submitted.
        workflow_id: The caller's name for it, if any.
        idempotency_key: Key under which it is submitted once, if any.
        labels: Names and values by which its runs are found.
        context: Data that expressions read as `context`.
        deadline: Seconds from its submission, if any.
        concurrency: Limit of runs that share a key, if any.
        output: Template of the run's output, if any.
        steps: By id, in the order written.
    """

    raw: dict[str, Any]
    workflow_id: str | None
    idempotency_key: str | None
    labels: Mapping[str, str]
    context: Mapping[str, Any]
    deadline: float | None
    concurrency: Concurrency | None
    output: Template | None
    steps: dict[str, Step]


def load(raw: dict[str, Any], types: StepTypes) -> Definition:
    """Return the definition that `parse` has accepted before; nothing is checked again.

    Raises:
        InvalidDefinition: It names a step type that no longer exists.
        ExpressionFailed: It was never accepted.
    """
    written = raw["steps"]
    defaults = raw.get("defaults") or {}
    before = dependencies(written)
    after = _dependents(before)
    steps = {
        step["step_id"]: _step(step, index, defaults, types, before[step["step_id"]], after[step["step_id"]])
        for index, step in enumerate(written)
    }
    return Definition(
        raw=raw,
        workflow_id=raw.get("workflow_id"),
        idempotency_key=raw.get("idempotency_key"),
        labels=raw.get("labels") or {},
        context=raw.get("context") or {},
        deadline=_seconds(raw.get("deadline"), None),
        concurrency=_concurrency(raw.get("concurrency")),
        output=Template.of(raw["output"]) if raw.get("output") is not None else None,
        steps=steps,
    )


def dependencies(written: list[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return what each step depends on: the steps that it names, or the one before it."""
    found: dict[str, tuple[str, ...]] = {}
    previous: tuple[str, ...] = ()
    for step in written:
        named = step.get("depends_on")
        found[step["step_id"]] = previous if named is None else tuple(named)
        previous = (step["step_id"],)
    return found


def _dependents(before: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    after: dict[str, list[str]] = {step_id: [] for step_id in before}
    for step_id, named in before.items():
        for name in named:
            after[name].append(step_id)
    return {step_id: tuple(names) for step_id, names in after.items()}


def _step(
    written: dict[str, Any],
    index: int,
    defaults: Mapping[str, Any],
    types: StepTypes,
    depends_on: tuple[str, ...],
    dependents: tuple[str, ...],
) -> Step:
    type_ = _type(written["type"], types)
    parameters = _parameters(type_, written.get("parameters") or {})
    when = Condition.of(written["when"]) if written.get("when") is not None else None
    for_each = _for_each(written.get("for_each"))
    uses = parameters.uses | (when.expression.uses if when else Uses()) | (for_each.items.uses if for_each else Uses())
    return Step(
        step_id=written["step_id"],
        index=index,
        type=type_,
        parameters=parameters,
        depends_on=depends_on,
        dependents=dependents,
        when=when,
        for_each=for_each,
        on_error=written.get("on_error") or "fail",
        timeout=_seconds(written.get("timeout") or defaults.get("timeout"), models.DEFAULT_TIMEOUT),
        start_timeout=_seconds(
            written.get("start_timeout") or defaults.get("start_timeout"), models.DEFAULT_START_TIMEOUT
        ),
        retry=_retry(written.get("retry") or {}, defaults.get("retry") or {}),
        references=References.of(uses),
    )


def _type(name: str, types: StepTypes) -> StepType[Any]:
    if name not in types:
        raise InvalidDefinition(f"there is no step type `{name}` any more")
    return types[name]


def _parameters(type_: StepType[Any], written: dict[str, Any]) -> Template:
    """Return the template of a step's parameters; the expressions of a nested definition are its own run's."""
    name = type_.nested.definition if type_.nested is not None else ""
    nested = isinstance(written.get(name), dict)
    return Template.of(written, verbatim=frozenset({name}) if nested else frozenset())


def _for_each(written: Mapping[str, Any] | None) -> ForEach | None:
    if written is None:
        return None
    parallel = written.get("max_parallel")
    return ForEach(Template.of(written["items"]), models.DEFAULT_PARALLEL if parallel is None else parallel)


def _retry(own: Mapping[str, Any], default: Mapping[str, Any]) -> RetryPolicy:
    said = {**default, **{name: value for name, value in own.items() if value is not None}}
    attempts, factor = said.get("max_attempts"), said.get("factor")
    return RetryPolicy(
        max_attempts=models.DEFAULT_ATTEMPTS if attempts is None else attempts,
        delay=_seconds(said.get("delay"), models.DEFAULT_DELAY),
        factor=models.DEFAULT_FACTOR if factor is None else float(factor),
        max_delay=_seconds(said.get("max_delay"), models.DEFAULT_MAX_DELAY),
    )


def _concurrency(written: Mapping[str, Any] | None) -> Concurrency | None:
    return Concurrency(key=written["key"], limit=written.get("limit") or 1) if written is not None else None


def _seconds(written: Any, default: Any) -> Any:
    return default if written is None else read_duration(written)
