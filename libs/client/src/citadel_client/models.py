"""Arguments and results of the operations on workflows, runs, collections and dead letters."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict
from uuid import uuid4

from pydantic import Field

from citadel_contracts.api import Reply
from citadel_contracts.errors import FieldError
from citadel_contracts.runs import RunStatus, StorePoint

Definition = Mapping[str, Any]
Point = StorePoint | Mapping[str, Any]


class RunFilters(TypedDict, total=False):
    """Filters of a list of runs; those left out match every run.

    Attributes:
        status: Status of the run.
        workflow_id: Id of its workflow.
        kind: `workflow`, `batch` or `task`.
        labels: Labels that it has, all of them.
        since: Submitted at or after this time.
        until: Submitted before this time.
    """

    status: RunStatus | None
    workflow_id: str | None
    kind: str | None
    labels: Mapping[str, str] | None
    since: datetime | None
    until: datetime | None


class DeadLetterFilters(TypedDict, total=False):
    """Filters of dead letters; those left out match every dead letter.

    Attributes:
        queue: Queue it came from.
        task: Registered name of its task.
        code: Error code.
        error: Part of the error message; upper and lower case are the same.
        since: Dead-lettered at or after this time.
        until: Dead-lettered before this time.
    """

    queue: str | None
    task: str | None
    code: str | None
    error: str | None
    since: datetime | None
    until: datetime | None


class SearchOptions(TypedDict, total=False):
    """How a collection is searched.

    Attributes:
        model: Model of the text's vector; the server's default if left out.
        limit: Maximum number of hits.
        filter: Qdrant's filter, or payload keys and their values.
        score_threshold: Score that every hit is nearer than: above it by the metrics cosine and dot, below it by euclid
            and manhattan.
        vector_name: Which of a point's vectors; the unnamed one if left out.
    """

    model: str | None
    limit: int
    filter: Mapping[str, Any] | None
    score_threshold: float | None
    vector_name: str | None


class PlannedStep(Reply):
    """One step of a plan.

    Attributes:
        calls: Number of calls by kind of service, per item if `per_item`; None if only the run can tell.
        items: Number of items it runs over; None if only the run can tell.
        start_timeout: Seconds that it may wait for its start; None from a server that does not tell.
        timeout: Seconds that one attempt may take; None from a server that does not tell.
    """

    step_id: str
    type: str
    queue: str = ""
    depends_on: list[str] = Field(default_factory=list)
    conditional: bool = False
    per_item: bool = False
    items: int | None = None
    start_timeout: float | None = None
    timeout: float | None = None
    calls: dict[str, int | None] = Field(default_factory=dict)


class WorkflowPlan(Reply):
    """The plan of a workflow.

    Attributes:
        order: Levels of step ids; the steps of a level run at the same time.
        graph: The order as a Mermaid graph.
        warnings: Things that are allowed and may be mistakes.
    """

    workflow_id: str | None = None
    order: list[list[str]]
    graph: str
    steps: list[PlannedStep]
    warnings: list[str] = Field(default_factory=list)


class Validation(Reply):
    """Problems of a definition, each with its JSON pointer, and warnings."""

    problems: list[FieldError] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Return whether the definition can be run."""
        return not self.problems


class CommandResult(Reply):
    """Status of a run after a command."""

    run_id: str
    status: RunStatus


def submission(
    definition: Definition, context: Mapping[str, Any] | None, idempotency_key: str | None
) -> dict[str, Any]:
    """Return a definition as it is submitted: `context` merged over its own, and with an idempotency key.

    A definition without a key gets a random one, so that a repeated request starts one run.
    """
    found = {"idempotency_key": uuid4().hex, **with_context(definition, context)}
    return found if idempotency_key is None else found | {"idempotency_key": idempotency_key}


def with_context(definition: Definition, context: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the definition with `context` merged over its own."""
    merged = {"context": {**(definition.get("context") or {}), **context}} if context else {}
    return {**definition, **merged}
