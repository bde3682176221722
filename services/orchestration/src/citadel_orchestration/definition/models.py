"""Models of definitions as users write them, and their limits.

The models say which fields there are, and of what types; `parse` checks how the fields go together.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from citadel_common.durations import NUMBER, parse_duration
from citadel_contracts.base import NullIsAbsent

STEP_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$"
LABEL = r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,62}$"

DEFAULT_TIMEOUT = 300.0
DEFAULT_START_TIMEOUT = 86_400.0
DEFAULT_ATTEMPTS = 3
DEFAULT_DELAY = 1.0
DEFAULT_FACTOR = 2.0
DEFAULT_MAX_DELAY = 60.0
DEFAULT_PARALLEL = 16

UNITS = ("ms", "s", "m", "h")
_PATTERN = rf"^({NUMBER})({'|'.join(UNITS)})$"


def read_duration(value: Any) -> float:
    """Return the seconds of a written duration.

    Raises:
        ValueError: It is not a duration; the message says what one looks like.
    """
    seconds = parse_duration(value, units=UNITS)
    if seconds is None:
        raise ValueError('must be a duration such as "500ms", "1.5s", "2m" or "1h", or a number of seconds')
    return seconds


Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _PATTERN}, {"type": "number", "minimum": 0}]}),
]
"""A field that holds seconds and is written as a duration."""


@dataclass(frozen=True, kw_only=True)
class DefinitionLimits:
    """Limits that are checked when a definition is submitted.

    Attributes:
        max_steps: Steps of one definition.
        max_definition_bytes: Bytes of a definition as compact JSON.
        max_context_bytes: Bytes of its context as compact JSON.
        max_depth: Levels of lists and objects.
        max_items: Literal items of one `for_each`.
        max_parallel: Items of one step at once.
        max_attempts: Attempts of one step.
        max_timeout: Seconds; longest timeout and start timeout of a step, and longest delay between attempts.
        max_deadline: Seconds; longest deadline of a run.
        max_concurrency: Largest limit per concurrency key.
        max_labels: Labels of one definition.
        max_nesting: Sub-workflows within one another.
        max_problems: Problems that one answer lists.
    """

    max_steps: int = 1000
    max_definition_bytes: int = 2**20
    max_context_bytes: int = 2**20
    max_depth: int = 64
    max_items: int = 10_000
    max_parallel: int = 256
    max_attempts: int = 100
    max_timeout: float = 86_400.0
    max_deadline: float = 30 * 86_400.0
    max_concurrency: int = 10_000
    max_labels: int = 64
    max_nesting: int = 5
    max_problems: int = 200


StepId = Annotated[str, StringConstraints(pattern=STEP_ID)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=255)]
OnError = Literal["fail", "continue"]


class Written(NullIsAbsent):
    """Base of what users write: closed, immutable, nothing coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RetryModel(Written):
    """How often a step is tried, and the delays in between; every field has a default."""

    max_attempts: int | None = Field(None, ge=1, description="Attempts in all; default 3")
    delay: Duration | None = Field(None, description="Before the second attempt; default 1s")
    factor: float | None = Field(None, ge=1, le=100, description="Growth of the delay per attempt; default 2")
    max_delay: Duration | None = Field(None, description="Longest delay; default 60s")


class DefaultsModel(Written):
    """Timeout and retries of steps that have none of their own."""

    timeout: Duration | None = Field(None, description="Of one attempt, while it runs; default 300s")
    start_timeout: Duration | None = Field(
        None, description="How long a step may wait for its start, such as for a slot of an LLM endpoint; default 24h"
    )
    retry: RetryModel | None = Field(None, description="Default retries")


class ConcurrencyModel(Written):
    """At most `limit` runs with the same key at once; further ones wait."""

    key: Key = Field(description="Name that runs share")
    limit: int = Field(1, ge=1, description="Runs at once")


class ForEachModel(Written):
    """Runs the step once per item; its output is the list of outputs in order."""

    items: Any = Field(description="A list, or an expression that gives one")
    max_parallel: int | None = Field(None, ge=1, description="Items at once; default 16")


class StepModel(Written):
    """One step."""

    step_id: StepId = Field(description="Its name, unique in the definition")
    type: Annotated[str, StringConstraints(min_length=1)] = Field(description="Its step type")
    parameters: dict[str, Any] = Field({}, description="Of the type; any value may be an expression")
    depends_on: list[str] | None = Field(None, description="Steps that come first; omitted: the step before; []: none")
    when: str | None = Field(None, description="CEL condition; the step is skipped where it is false")
    on_error: OnError = Field("fail", description="`continue` lets the run go on when the step has failed")
    for_each: ForEachModel | None = Field(None, description="Runs the step once per item")
    timeout: Duration | None = Field(None, description="Of one attempt, while it runs")
    start_timeout: Duration | None = Field(None, description="How long it may wait for its start")
    retry: RetryModel | None = Field(None, description="How often it is tried")


class HeadModel(Written):
    """A definition without its steps."""

    workflow_id: Key | None = Field(None, description="The caller's name for it")
    idempotency_key: Key | None = Field(None, description="Submitting the same key again gives the same run")
    context: dict[str, Any] = Field({}, description="Data that expressions read as `context`")
    labels: dict[
        Annotated[str, StringConstraints(pattern=LABEL)], Annotated[str, StringConstraints(max_length=255)]
    ] = Field({}, description="Names and values by which runs are found")
    deadline: Duration | None = Field(None, description="Of the whole run, from its submission")
    concurrency: ConcurrencyModel | None = Field(None, description="Limits runs that share a key")
    defaults: DefaultsModel | None = Field(None, description="What holds for steps that do not say otherwise")
    output: Any = Field(None, description="The run's output: any JSON with expressions; default: the last step's")


class DefinitionModel(HeadModel):
    """A workflow definition."""

    steps: list[StepModel] = Field(min_length=1, description="Its steps")
