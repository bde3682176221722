"""Bodies of the run routes, shared by the server and the SDK."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from citadel_contracts.api import Body, Reply
from citadel_contracts.base import OrDefault
from citadel_contracts.embeddings import BatchRequest, EncodingFormat
from citadel_contracts.errors import ErrorData

RunStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled", "timed_out"]
UNFINISHED: tuple[RunStatus, ...] = ("queued", "running", "paused")
FINISHED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "timed_out"})
"""Final states of a run; only a retry leaves them."""
LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,62}$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[^\x00]{0,255}$")]
IdempotencyKey = Annotated[str, StringConstraints(pattern=r"^[^\x00]{1,255}$")]
"""PostgreSQL stores no NUL in text."""


class RunAccepted(Reply):
    """Answer of a submission: the run is stored and will end, whatever dies meanwhile."""

    run_id: str
    workflow_id: str
    status: RunStatus


class RunCommanded(Reply):
    """Answer of a command, such as cancel: the run and its status after it."""

    run_id: str
    status: RunStatus


class RunError(ErrorData):
    """The error of a failed run or step."""

    step_id: str | None = None


class ItemCounts(Reply):
    """Items of a `for_each`; `waiting` ones wait for a slot of the resource that they use."""

    total: int
    done: int
    failed: int
    waiting: int = 0


class StepView(Reply):
    """One step of a run; the output of a single one is at `/v1/runs/{id}/steps/{step_id}`.

    `attempt` counts the attempts that have begun, without waits. `waiting_for` says what a waiting step waits for: a
    resource such as `llm:main`, `signal:NAME`, `sub_run`, `retry` or `time`. For a `for_each` it is what its items
    wait for, if any does.
    """

    step_id: str
    type: str
    status: str
    attempt: int
    error: RunError | None = None
    items: ItemCounts | None = None
    waiting_for: str | None = None
    waiting_since: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class RunSummary(Reply):
    """A run in a list; times are UTC. `trace_id` finds its trace; None where its submission was not traced."""

    run_id: str
    workflow_id: str
    kind: str
    status: RunStatus
    labels: dict[str, str] = Field(default_factory=dict)
    error: RunError | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline_at: datetime | None = None
    trace_id: str | None = None


class WaitingFor(Reply):
    """The line of a concurrency key, in which a run waits; the next one that starts has position 1."""

    concurrency_key: str
    limit: int
    position: int
    since: datetime


class RunView(RunSummary):
    """A run with its steps.

    `output` and `final_context` are set once it has ended, `waiting_for` while it waits for others of its concurrency
    key. An output that is too large for the answer is left out: `output_bytes` is its size, and `output_url` or
    `final_context_url` the path that gives it whole.
    """

    parent_run_id: str | None = None
    waiting_for: WaitingFor | None = None
    steps: list[StepView] = Field(default_factory=list)
    output: Any = None
    final_context: dict[str, Any] | None = None
    output_bytes: int | None = None
    output_url: str | None = None
    final_context_url: str | None = None


class StepOutput(StepView):
    """One step with its output; that of a `for_each` is the list of its items'.

    One that is too large for the answer is left out: `output_bytes` is its size, and `output_url` the path that gives
    it whole.
    """

    output: Any = None
    output_bytes: int | None = None
    output_url: str | None = None


class RunList(Reply):
    """A page of runs, newest first; `next_cursor` gives the next one."""

    runs: list[RunSummary]
    next_cursor: str | None = None


class RunEvent(Reply):
    """One event of a run; `seq` counts from 1 without gaps, and is the id of the server-sent event."""

    seq: int
    at: datetime
    type: str
    step_id: str | None = None
    item: int | None = None
    data: dict[str, Any] = Field(default_factory=dict)


class EmbeddingBatchHead(Body):
    """The part of a batch that holds for all its requests."""

    model: str | None = None
    labels: OrDefault[Annotated[dict[LabelName, LabelValue], Field(max_length=64)]] = Field(default_factory=dict)
    idempotency_key: IdempotencyKey | None = None


class EmbeddingBatchRequest(EmbeddingBatchHead):
    """`POST /v1/embeddings/batches` as JSON; as NDJSON, each line is one of `requests`, and the rest in the query."""

    requests: Annotated[list[BatchRequest], Field(fail_fast=True)]


Metric = Literal["cosine", "dot", "euclid", "manhattan"]
"""By `cosine` and `dot` a greater score is nearer, by `euclid` and `manhattan` a smaller one."""


class StorePoint(Body):
    """A point to store: with its vector, or with a text that is embedded."""

    id: str | int | None = None
    text: str | None = None
    embedding: Annotated[list[float], Field(fail_fast=True)] | None = None
    payload: dict[str, Any] | None = None


class StoreRequest(Body):
    """`POST /v1/collections/{name}/points`."""

    points: Annotated[list[StorePoint], Field(min_length=1, max_length=1000, fail_fast=True)]
    model: str | None = None
    vector_name: str | None = None
    distance: Metric | None = None


class SearchRequest(Body):
    """`POST /v1/collections/{name}/search`: by a text or by a vector."""

    text: str | None = None
    embedding: Annotated[list[float], Field(fail_fast=True)] | None = None
    model: str | None = None
    limit: OrDefault[Annotated[int, Field(ge=1, le=1000)]] = 10
    filter: dict[str, Any] | None = None
    score_threshold: float | None = None
    vector_name: str | None = None


class StoreResponse(Reply):
    """The stored points."""

    upserted: int
    ids: list[str | int]


class SearchHit(Reply):
    """One point that was found.

    By the metrics `cosine` and `dot` a greater score is nearer, by `euclid` and `manhattan` a smaller one.
    """

    id: str | int
    score: float
    metric: str | None = None
    payload: dict[str, Any] | None = None


class SearchResponse(Reply):
    """The nearest points, nearest first."""

    hits: list[SearchHit]


class BatchResult(Reply):
    """One line of a batch's results, in the order of its requests."""

    index: int
    request_id: str | int | None = None
    embeddings: list[Any] = Field(default_factory=list)
    model: str | None = None
    dimensions: int = 0
    cache_hits: int = 0
    truncated: list[int] = Field(default_factory=list)
    errors: list[dict[str, Any]] = Field(default_factory=list)


__all__ = [
    "FINISHED",
    "UNFINISHED",
    "BatchResult",
    "EmbeddingBatchHead",
    "EmbeddingBatchRequest",
    "EncodingFormat",
    "IdempotencyKey",
    "ItemCounts",
    "LabelName",
    "LabelValue",
    "Metric",
    "RunAccepted",
    "RunCommanded",
    "RunError",
    "RunEvent",
    "RunList",
    "RunStatus",
    "RunSummary",
    "RunView",
    "SearchHit",
    "SearchRequest",
    "SearchResponse",
    "StepOutput",
    "StepView",
    "StorePoint",
    "StoreRequest",
    "StoreResponse",
]
