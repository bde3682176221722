"""A checked definition, ready to run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from citadel_orchestration.definition.template import Condition, References, Template
from citadel_orchestration.step_types import StepType


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a step is tried.

    Attributes:
        max_attempts: In all, the first included.
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
    """What a step runs over."""

    items: Template
    max_parallel: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        step_id: Its name.
        index: Its place in the definition, from 0.
        type: Its type.
        parameters: As a template.
        depends_on: Steps that come first.
        dependents: Steps that depend on it.
        when: Its condition; None for always.
        for_each: What it runs over; None for once.
        on_error: `fail` fails the run, `continue` does not.
        timeout: Seconds; of one attempt.
        retry: How often it is tried.
        references: What its parameters, condition and items read.
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
