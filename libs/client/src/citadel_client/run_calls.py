"""The operations on workflows, runs, batches and collections as calls: what is sent, how the answer is read."""

from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode
from uuid import uuid4

import httpx
import orjson
from pydantic import BaseModel, Field, TypeAdapter

from citadel_client.errors import InvalidRequest
from citadel_client.flow import Call
from citadel_contracts.api import FieldError, Reply
from citadel_contracts.runs import (
    RunAccepted,
    RunEvent,
    RunList,
    RunStatus,
    RunView,
    SearchHit,
    SearchResponse,
    StepOutput,
    StorePoint,
    StoreResponse,
)

M = TypeVar("M", bound=BaseModel)
Definition = Mapping[str, Any]
Point = StorePoint | Mapping[str, Any]
Steering = Literal["cancel", "pause", "resume", "retry"]
NDJSON = "application/x-ndjson"
PAGE = 100
"""Runs asked for at once."""


class RunFilters(TypedDict, total=False):
    """Which runs to list; what is left out does not filter.

    Attributes:
        status: State they are in.
        workflow_id: Their workflow's id.
        kind: `workflow`, `batch` or `task`.
        labels: Labels they all have.
        since: Not submitted before.
        until: Submitted before.
    """

    status: RunStatus | None
    workflow_id: str | None
    kind: str | None
    labels: Mapping[str, str] | None
    since: datetime | None
    until: datetime | None


class SearchOptions(TypedDict, total=False):
    """How a collection is searched.

    Attributes:
        model: Model of the text's vector; the server's default where left out.
        limit: Hits at most.
        filter: Qdrant's filter, or payload keys and the values they must have.
        score_threshold: Score that a hit reaches at least.
    """

    model: str | None
    limit: int
    filter: Mapping[str, Any] | None
    score_threshold: float | None


class PlannedStep(Reply):
    """One step of a plan.

    Attributes:
        calls: How often, per item where `per_item`, each kind of service is called; None where only the run knows.
        items: How many items it runs over; None where only the run knows.
    """

    step_id: str
    type: str
    queue: str = ""
    depends_on: list[str] = Field(default_factory=list)
    conditional: bool = False
    per_item: bool = False
    items: int | None = None
    calls: dict[str, int | None] = Field(default_factory=dict)


class WorkflowPlan(Reply):
    """What a workflow would do.

    Attributes:
        order: Levels of step ids; those of a level run at the same time.
        graph: The same as a Mermaid graph.
        warnings: What is allowed, and perhaps not meant.
    """

    workflow_id: str | None = None
    order: list[list[str]]
    graph: str
    steps: list[PlannedStep]
    warnings: list[str] = Field(default_factory=list)


class Validation(Reply):
    """What is wrong with a definition, each by its JSON pointer, and what may not be meant."""

    problems: list[FieldError] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it can be run."""
        return not self.problems


class Steered(Reply):
    """State of a run after an order."""

    run_id: str
    status: RunStatus


def _as(model: type[M]) -> Callable[[httpx.Response], M]:
    return lambda response: model.model_validate_json(response.content)


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def path_of(run_id: str, *below: str) -> str:
    """Path of a run, or of something below it."""
    return "/v1/runs/" + "/".join(quote(part, safe="") for part in (run_id, *below))


def completed(definition: Definition, context: Mapping[str, Any] | None, key: str | None = None) -> dict[str, Any]:
    """The definition as it is submitted, `context` over its own; without a key it gets one, so that it runs once."""
    found = dict(definition)
    if context:
        found["context"] = {**(found.get("context") or {}), **context}
    if key is not None:
        found["idempotency_key"] = key
    return found


def submit(definition: Definition) -> Call[RunAccepted]:
    """Have a workflow run."""
    body = _json({"idempotency_key": uuid4().hex, **definition})
    return Call(method="POST", path="/v1/workflows", body=lambda: body, read=_as(RunAccepted))


def plan(definition: Definition) -> Call[WorkflowPlan]:
    """Check and plan a workflow."""
    return Call(method="POST", path="/v1/workflows/plan", body=lambda: _json(definition), read=_as(WorkflowPlan))


def show(run_id: str, *, outputs: bool = True) -> Call[RunView]:
    """A run with its steps."""
    path = path_of(run_id) + ("" if outputs else "?outputs=false")
    return Call(method="GET", path=path, read=_as(RunView))


def page(cursor: str | None, limit: int, filters: RunFilters) -> Call[RunList]:
    """A page of runs, newest first."""
    plain = {name: value for name, value in filters.items() if name != "labels"} | {"cursor": cursor, "limit": limit}
    query = [(name, _text(value)) for name, value in plain.items() if value is not None]
    query += _labels(filters.get("labels"))
    return Call(method="GET", path=f"/v1/runs?{urlencode(query)}", read=_as(RunList))


def _labels(labels: Mapping[str, str] | None) -> list[tuple[str, str]]:
    return [("label", f"{name}:{value}") for name, value in (labels or {}).items()]


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


_EVENTS = TypeAdapter(list[RunEvent])


def events_after(run_id: str, after: int) -> Call[list[RunEvent]]:
    """The next events so far."""
    path = f"{path_of(run_id, 'events')}?after={after}"
    return Call(method="GET", path=path, read=lambda response: _EVENTS.validate_json(response.content))


def step(run_id: str, step_id: str) -> Call[StepOutput]:
    """A step with its output."""
    return Call(method="GET", path=path_of(run_id, "steps", step_id), read=_as(StepOutput))


def graph(run_id: str) -> Call[str]:
    """A run as a Mermaid graph."""
    return Call(method="GET", path=path_of(run_id, "graph"), read=lambda response: response.text)


def steer(run_id: str, order: Steering) -> Call[Steered]:
    """Cancel, pause, resume or retry a run."""
    repeatable = order != "retry"  # made twice, it could run what failed twice
    return Call(method="POST", path=path_of(run_id, order), read=_as(Steered), repeatable=repeatable)


def signal(run_id: str, name: str, payload: Any) -> Call[Steered]:
    """Send a signal; two are two signals, so this is never repeated."""
    path = path_of(run_id, "signals", name)
    return Call(method="POST", path=path, body=lambda: _json(payload), read=_as(Steered), repeatable=False)


def batch(
    lines: Callable[[], Iterable[bytes] | AsyncIterable[bytes]],
    *,
    model: str | None,
    idempotency_key: str | None,
    labels: Mapping[str, str] | None,
    repeatable: bool,
) -> Call[RunAccepted]:
    """Have a batch embedded; `lines` gives its NDJSON, for each attempt anew."""
    query = [("idempotency_key", idempotency_key or uuid4().hex), *_labels(labels)]
    query += [("model", model)] if model else []
    return Call(
        method="POST",
        path=f"/v1/embeddings/batches?{urlencode(query)}",
        body=lines,
        content_type=NDJSON,
        read=_as(RunAccepted),
        repeatable=repeatable,
    )


def encoded_point(point: Point) -> bytes:
    """A point as JSON.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        return _json(point.model_dump(exclude_none=True) if isinstance(point, StorePoint) else point)
    except TypeError as error:
        raise InvalidRequest(f"a point is not JSON: {error}") from error


def store(name: str, points: Sequence[bytes], model: str | None) -> Call[StoreResponse]:
    """Store points, each as JSON; to do it again changes nothing."""
    body = _json({"points": [orjson.Fragment(point) for point in points]} | ({"model": model} if model else {}))
    path = f"/v1/collections/{quote(name, safe='')}/points"
    return Call(method="POST", path=path, body=lambda: body, read=_as(StoreResponse))


def search(
    name: str, text: str | None, embedding: Sequence[float] | None, **options: Unpack[SearchOptions]
) -> Call[list[SearchHit]]:
    """Search a collection."""
    vector = None if embedding is None else [float(number) for number in embedding]
    wanted = {"text": text, "embedding": vector, **options}
    body = _json({field: value for field, value in wanted.items() if value is not None})
    read = _as(SearchResponse)
    path = f"/v1/collections/{quote(name, safe='')}/search"
    return Call(method="POST", path=path, body=lambda: body, read=lambda response: read(response).hits)
