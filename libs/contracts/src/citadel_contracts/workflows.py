"""Contracts of the orchestration queue: the users' tasks and the engine's own.

Argument names, their order and the result keys of the users' tasks are public: plain Celery clients depend on them.
"""

from typing import Annotated, Any, NotRequired, TypedDict

from pydantic import Field

from citadel_contracts.base import Lane, OrDefault, Payload, Queue, TaskSpec
from citadel_contracts.dialects import AnyTruncate, TokenLimit
from citadel_contracts.embeddings import Dimensions, InputType
from citadel_contracts.errors import ErrorData


class ExecuteWorkflow(Payload):
    """Arguments of `execute_workflow`: the definition, in the minimal or the full form."""

    workflow_definition: dict[str, Any]


class WorkflowStepResult(TypedDict):
    """One executed step."""

    step_id: str
    step_type: str
    result: Any
    timestamp: str


class ExecuteWorkflowResult(TypedDict):
    """Result of `execute_workflow`; a failed run has `success` False, and says why in `error` and `failure`.

    Of a run that made too much for a result, `result`, `final_context` and `output` are empty; `left_out` says so, and
    `GET /v1/runs/{run_id}` leads to what they would be.
    """

    success: bool
    workflow_id: str
    task_id: str
    steps_executed: int
    workflow_results: list[WorkflowStepResult]
    final_context: dict[str, Any]
    timestamp: str
    run_id: NotRequired[str]
    status: NotRequired[str]
    output: NotRequired[Any]
    left_out: NotRequired[str]
    error: NotRequired[str]
    failure: NotRequired[dict[str, Any]]


class QueryLlmService(Payload):
    """Arguments of `query_llm_service`.

    Attributes:
        query: The question.
        context: Facts to answer from.
        service_endpoint: Name or URL of a configured endpoint; None takes the default one.
        model: Model name; None takes the endpoint's.
        system: System prompt.
        options: Passed on to the endpoint (temperature, max_tokens, …).
        response_schema: JSON Schema that the answer must fit.
    """

    query: str
    context: dict[str, Any] | None = None
    service_endpoint: str | None = None
    model: str | None = None
    system: str | None = None
    options: dict[str, Any] | None = None
    response_schema: dict[str, Any] | None = None


class VectorSimilaritySearch(Payload):
    """Arguments of `vector_similarity_search`: a vector, or a text that is embedded first."""

    embedding: list[float] | None = None
    collection: str
    limit: OrDefault[Annotated[int, Field(ge=1, le=1000)]] = 10
    filter: dict[str, Any] | None = None
    score_threshold: float | None = None
    text: str | None = None
    model: str | None = None
    vector_name: str | None = None


class UpsertVectors(Payload):
    """Arguments of `upsert_vectors`: points with an `embedding`, or a `text` that is embedded first."""

    collection: str
    points: list[dict[str, Any]]
    model: str | None = None
    vector_name: str | None = None
    distance: str | None = None


class StepTaskResult(TypedDict):
    """Result of the tasks of a single step: the step's output, or `error` and `failure`, beside these keys."""

    success: bool
    task_id: str
    timestamp: str
    data: NotRequired[dict[str, Any]]
    error: NotRequired[str]
    failure: NotRequired[dict[str, Any]]


class RunStep(Payload):
    """Arguments of the engine's `citadel.run_step`: a step that is ready."""

    run_id: str
    step_id: str
    item: OrDefault[int] = -1


class EmbedPart(Payload):
    """One request of a step: see the contract of `generate_embedding`."""

    texts: list[str]
    model: str | None = None
    dimensions: Dimensions | None = None
    input_type: InputType | None = None
    options: dict[str, Any] | None = None
    cache_enabled: OrDefault[bool] = True
    truncate: AnyTruncate = None
    truncate_prompt_tokens: TokenLimit | None = None


class EmbedStep(Payload):
    """The texts of one workflow step that need vectors.

    Attributes:
        run_id: Its run.
        step_id: Its step.
        item: Index within a `for_each`, or -1.
        attempt: Fencing number; comes back with the vectors.
        parts: The requests.
        echo: Comes back with the vectors.
        lane: Lane in which the texts are computed; None takes the message's.
        deadline: Seconds since the epoch after which the step no longer wants them, its wait in the queue included.
        trace: Trace context of the message, `traceparent` and `tracestate`.
    """

    run_id: str
    step_id: str
    item: int
    attempt: int
    parts: list[EmbedPart]
    echo: dict[str, Any] | None = None
    lane: Annotated[Lane, Field(strict=False)] | None = None
    deadline: float | None = None
    trace: dict[str, str] | None = None


def embedding_name(run_id: str, step_id: str, item: int, attempt: int) -> str:
    """Return the name by which the texts of an attempt are tracked, from the engine's message to the answer."""
    return f"{run_id}:{item}:{attempt}:{step_id}"


STEP_TIMEOUTS_HEADER = "citadel_step_timeouts"
"""Header of `citadel.embed_steps`: for each of its steps the seconds that it may take once a worker has the message.

It is a header because older workers refuse fields of the payload that they do not know.
"""


class EmbedSteps(Payload):
    """Arguments of the engine's `citadel.embed_steps`: steps of any runs, each answered for itself."""

    steps: list[EmbedStep] = Field(min_length=1)


class EmbeddedPart(Payload):
    """The answer to one request.

    Attributes:
        vectors: base64 of little-endian float32 per text; None just where `errors` names the index.
        model: Name of the model.
        dimensions: Length of the vectors.
        cache_hits: Texts answered from the cache.
        truncated: Indices of texts that were cut.
        tokens: As the backend counted, for what it computed.
        errors: Why single texts have no vector; each has its index.
        error: Why the whole request failed.
    """

    vectors: list[str | None]
    model: str = ""
    dimensions: int = 0
    cache_hits: int = 0
    truncated: list[int] = Field(default_factory=list)
    tokens: int = 0
    errors: list[ErrorData] = Field(default_factory=list)
    error: ErrorData | None = None


EMBEDDED = "citadel:steps:embedded"
"""List in the broker's Redis: `StepEmbedded` as JSON, the oldest first."""
MOST_ANSWER_BYTES = 32 * 2**20
"""Bytes of the vectors in one answer, as base64; a thousand vectors of 4096 dimensions have 22 million."""


class StepEmbedded(Payload):
    """The answer of an embeddings worker: the vectors, in the order of the parts.

    It is an entry of a list, not a task: the engine asks again if one is lost. `trace` is its trace context.
    """

    run_id: str
    step_id: str
    item: int
    attempt: int
    parts: list[EmbeddedPart]
    echo: dict[str, Any] | None = None
    trace: dict[str, str] | None = None


# The runs that these four start store their results, when they end.
EXECUTE_WORKFLOW = TaskSpec(
    name="execute_workflow",
    queue=Queue.ORCHESTRATION,
    payload=ExecuteWorkflow,
    result=ExecuteWorkflowResult,
)
QUERY_LLM_SERVICE = TaskSpec(
    name="query_llm_service",
    queue=Queue.ORCHESTRATION,
    payload=QueryLlmService,
    result=StepTaskResult,
)
VECTOR_SIMILARITY_SEARCH = TaskSpec(
    name="vector_similarity_search",
    queue=Queue.ORCHESTRATION,
    payload=VectorSimilaritySearch,
    result=StepTaskResult,
)
UPSERT_VECTORS = TaskSpec(
    name="upsert_vectors",
    queue=Queue.ORCHESTRATION,
    payload=UpsertVectors,
    result=StepTaskResult,
)
RUN_STEP = TaskSpec(
    name="citadel.run_step", queue=Queue.ORCHESTRATION, payload=RunStep, result=type(None), stores_result=False
)
EMBED_STEPS = TaskSpec(
    name="citadel.embed_steps",
    queue=Queue.EMBEDDINGS,
    payload=EmbedSteps,
    result=type(None),
    stores_result=False,
    part_by_part=True,
)
