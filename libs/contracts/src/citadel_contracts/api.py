"""Bodies of the HTTP API, shared by the server and the SDK."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from citadel_contracts.base import OrDefault
from citadel_contracts.dialects import AnyInputType, AnyTruncate, TokenLimit
from citadel_contracts.embeddings import Dimensions, EncodingFormat, GenerateEmbedding, Texts, WarmEmbeddingCache
from citadel_contracts.errors import ErrorData, FieldError
from citadel_contracts.maintenance import MisroutedMessages

HistoryKind = Literal["health", "metrics"]
MOST_DEAD_LETTERS = 500
"""Most dead letters that one call requeues or drops."""


class Body(BaseModel):
    """Base of request bodies: strict and closed, so that a misspelt field is an error, not a surprise."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Reply(BaseModel):
    """Base of responses; readers ignore fields they do not know, so that servers may add some."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class EmbeddingsRequest(Body):
    """`POST /v1/embeddings`: OpenAI's body and what other servers add to it; see `GenerateEmbedding`.

    Clients and gateways send fields of their own here, so unknown ones are kept apart (`model_extra`) and not refused.
    """

    model_config = ConfigDict(extra="allow")

    input: Texts
    model: str | None = None
    encoding_format: OrDefault[EncodingFormat] = "float"
    dimensions: Dimensions | None = None
    user: Any = None
    input_type: AnyInputType = None
    truncate: AnyTruncate = None
    truncate_prompt_tokens: TokenLimit | None = None
    options: dict[str, Any] | None = None
    cache_enabled: OrDefault[bool] = True


class EmbeddingItem(Reply):
    """One vector: a list of floats, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(Reply):
    """Tokens counted by the backend for what it computed; cached texts count none."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(Reply):
    """Answer of `POST /v1/embeddings`; `citadel` adds what OpenAI's shape has no place for."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: Usage
    citadel: "EmbeddingsExtra | None" = None


class EmbeddingsExtra(Reply):
    """How the answer came about: cache hits, and indices of texts cut to the model's context."""

    cache_hits: int
    truncated: list[int]


class EmbeddingTaskRequest(GenerateEmbedding):
    """`POST /v1/embeddings/tasks`: the arguments of `generate_embedding`."""


class CacheWarmRequest(WarmEmbeddingCache):
    """`POST /v1/cache/warm`: the arguments of `warm_embedding_cache`."""


class TaskAccepted(Reply):
    """202: the task is stored and will run."""

    task_id: str
    status: Literal["queued"] = "queued"
    queue: str


TaskState = Literal["queued", "running", "retrying", "succeeded", "failed", "revoked"]


class TaskFailure(ErrorData):
    """The error of a failed task."""


class TaskStatus(Reply):
    """`GET /v1/tasks/{id}`: `progress` while it runs, then `result` or `error`.

    `trace_id` finds its trace; None where the request that began it was not traced.
    """

    task_id: str
    status: TaskState
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: TaskFailure | None = None
    trace_id: str | None = None


class CacheStats(Reply):
    """`GET /v1/cache`: lookups since the cache was emptied; sizes are those of the whole cache server.

    Attributes:
        errors: Lookups that the cache did not answer.
        hit_rate: Share of hits among the lookups that were answered.
    """

    available: bool
    entries: int
    hits: int
    misses: int
    errors: int = 0
    hit_rate: float
    memory_bytes: int
    memory_limit_bytes: int
    evicted: int


class QueueStats(Reply):
    """One queue: messages that are ready, by lane; that wait for their time; that workers hold; that are misrouted."""

    name: str
    lanes: dict[str, int]
    ready: int
    scheduled: int = 0
    unacked: int
    workers: int
    misrouted: list[MisroutedMessages] = []


class QueuesResponse(Reply):
    """`GET /v1/queues`."""

    queues: list[QueueStats]


class WorkerInfo(Reply):
    """One live worker process."""

    id: str
    queue: str
    host: str
    pid: int
    concurrency: int
    running: int
    processed: int
    failed: int
    started_at: str
    last_seen_at: str


class WorkersResponse(Reply):
    """`GET /v1/workers`."""

    workers: list[WorkerInfo]


class ComponentHealth(Reply):
    """One dependency; `detail` describes its problem in a sentence without credentials.

    `unknown` is a dependency that is configured and has not been checked yet, or not lately.
    """

    status: Literal["up", "down", "unknown"]
    required: bool
    latency_ms: float | None = None
    detail: str | None = None


class HealthResponse(Reply):
    """`GET /v1/health`: `ok`; `degraded` when something optional is down; `down` when something required is."""

    status: Literal["ok", "degraded", "down"]
    version: str
    components: dict[str, ComponentHealth]


class HistoryResponse(Reply):
    """`GET /v1/history/{kind}`: results of the periodic task of that kind, newest first.

    Each entry has `at`, the time of the check, beside what the task returned.
    """

    kind: HistoryKind
    entries: list[dict[str, Any]]


class DeadLetterSummary(Reply):
    """A task or message that will not be tried again; `requeueable` is false if it could not be decoded."""

    id: str
    queue: str
    task: str | None = None
    code: str
    error: str
    at: str
    priority: int | None = None
    deliveries: int
    attempts: int
    requeueable: bool


class DeadLetterCount(Reply):
    """Number of dead letters of one queue with one error code."""

    queue: str
    code: str
    count: int


class DeadLetterList(Reply):
    """`GET /v1/dead-letters`: newest first; `total` and `counts` cover all dead letters, whatever the filter.

    A page may hold fewer than `limit`, or none: while there is a `next_cursor`, there may be more.
    """

    letters: list[DeadLetterSummary]
    next_cursor: str | None = None
    total: int
    counts: list[DeadLetterCount] = []


class DeadLetterView(DeadLetterSummary):  # type: ignore[no-redef]  # the name of a field and of what mypy adds
    """`GET /v1/dead-letters/{id}`: with its arguments, its error as data and its attempts, oldest first.

    Each attempt has `at`, `code`, `error`, `worker`, and what else is known of its error.

    For a message that could not be decoded, `raw` is its start as text, `raw_base64` more of it as bytes, and
    `raw_bytes` its length.
    """

    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    failure: ErrorData | None = None
    history: list[dict[str, Any]] = []
    accepted: bool = False
    trace_id: str | None = None
    raw: str | None = None
    raw_base64: str | None = None
    raw_bytes: int | None = None


class DeadLetterSelection(Body):
    """A selection of dead letters: those of `ids`, or those that fit every filter given, or `all`.

    `since` and `until` are times in ISO 8601; `error` is a part of the message, in any case. `limit` bounds
    one call, and `cursor` continues where the previous call ended.
    """

    ids: list[str] | None = Field(None, min_length=1, max_length=MOST_DEAD_LETTERS)
    queue: str | None = None
    task: str | None = None
    code: str | None = None
    error: str | None = None
    since: str | None = None
    until: str | None = None
    all: OrDefault[bool] = False
    limit: OrDefault[int] = Field(100, ge=1, le=MOST_DEAD_LETTERS)
    cursor: str | None = None


class DeadLetterRequeued(Reply):
    """The task is on its queue again, under its own id."""

    id: str
    task: str
    queue: str
    status: Literal["queued"] = "queued"


class DeadLetterFailure(ErrorData):
    """A dead letter that could not be requeued, and the reason."""

    id: str


class DeadLettersRequeued(Reply):
    """`POST /v1/dead-letters/requeue`: the outcomes; with a `next_cursor` there may be more that fit."""

    requeued: list[str]
    failed: list[DeadLetterFailure] = []
    next_cursor: str | None = None


class DeadLettersDropped(Reply):
    """`DELETE /v1/dead-letters`: how many were removed; with a `next_cursor` there may be more that fit."""

    dropped: int
    next_cursor: str | None = None


class ModelInfo(Reply):
    """One embedding model that a live backend has; `tokenizes` says whether token ids may be sent to it."""

    name: str
    identity: str
    backend: str
    dimensions: int | None = None
    max_tokens: int | None = None
    matryoshka: bool = False
    accepts_empty: bool = False
    query_prefix: str = ""
    document_prefix: str = ""
    tokenizes: bool = False


class Problem(Reply):
    """RFC 9457 problem document with the members of `ErrorData`, whose message is `detail`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    trace_id: str | None = None
    field: str | None = None
    index: int | None = None
    retryable: bool | None = None
    retry_after: float | None = None
    errors: list[FieldError] = []
