"""Contracts of the embeddings queue: the three tasks, their arguments and results.

Argument names, their order and the result keys are public: plain Celery clients depend on them.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import Field

from citadel_contracts.base import Lane, OrDefault, Payload, Queue, TaskSpec
from citadel_contracts.dialects import AnyInputType, AnyTruncate, InputType, TokenId, TokenLimit

EncodingFormat = Literal["float", "base64"]
Dimensions = Annotated[int, Field(ge=1, le=65536)]
Texts = str | Annotated[list[str], Field(fail_fast=True)]
"""One text or a list. The first bad text ends the check: an error for each of millions would take gigabytes."""


class GenerateEmbedding(Payload):
    """Arguments of `generate_embedding`.

    Attributes:
        text: One text or a list.
        model: Model name; None takes the configured default.
        options: Backend model options (Ollama's `options`).
        cache_enabled: Whether the cache is read and written.
        dimensions: Length of the vectors; None for the model's own.
        input_type: Adds the model's query or document prefix; spellings of other servers count.
        encoding_format: `float` (lists) or `base64` (little-endian float32).
        truncate: Whether a text that is too long for the model is cut, and said to be, or refused; None leaves it to
            the backend's protocol: Ollama and the local model cut, servers of OpenAI's protocol refuse. `start` cuts
            its beginning, where the model's tokenizer is at hand.
        truncate_prompt_tokens: Tokens to which texts are cut, where the model's tokenizer is at hand; -1 for as many
            as the model reads.
        tokens: Token ids of each text, of the model's own vocabulary, where its tokenizer is at hand; `text` holds as
            many empty texts then.
    """

    text: Texts
    model: str | None = None
    options: dict[str, Any] | None = None
    cache_enabled: OrDefault[bool] = True
    dimensions: Dimensions | None = None
    input_type: AnyInputType = None
    encoding_format: OrDefault[EncodingFormat] = "float"
    truncate: AnyTruncate = None
    truncate_prompt_tokens: TokenLimit | None = None
    tokens: Annotated[list[Annotated[list[TokenId], Field(fail_fast=True)]], Field(fail_fast=True)] | None = None


class ItemError(TypedDict):
    """The error of one text: an `ErrorData` that always has an index."""

    index: int
    code: str
    message: str
    field: NotRequired[str]
    retryable: NotRequired[bool]
    retry_after: NotRequired[float]


class GenerateEmbeddingResult(TypedDict):
    """Result of `generate_embedding`.

    `embeddings[i]` belongs to text i; it is None if and only if `errors` names index i, and then `success` is
    False. `truncated` lists the indices of texts of which the model read only the beginning;
    `total_tokens` counts the tokens that the backend reported for the texts that it computed.
    """

    success: bool
    task_id: str
    embeddings: list[list[float] | str | None]
    model_used: str
    dimensions: int
    cache_hits: int
    total_texts: int
    cache_hit_rate: float
    truncated: list[int]
    total_tokens: int
    errors: list[ItemError]
    processing_time_ms: float
    timestamp: str


class BatchRequest(GenerateEmbedding):
    """One request of a batch: the arguments of `generate_embedding` and an id of the caller's."""

    request_id: str | int | None = None


class BatchGenerateEmbeddings(Payload):
    """Arguments of `batch_generate_embeddings`; `batch_size` requests are processed per chunk."""

    batch_data: list[BatchRequest]
    batch_size: OrDefault[Annotated[int, Field(ge=1, le=10_000)]] = 100


class FailedRequest(TypedDict):
    """The result of a batch request of which no text could be embedded."""

    success: Literal[False]
    error: ItemError


class BatchItem(TypedDict):
    """Result of one request of a batch."""

    request_id: str | int | None
    result: GenerateEmbeddingResult | FailedRequest


class BatchGenerateEmbeddingsResult(TypedDict):
    """Result of `batch_generate_embeddings`; `batch_results` is in the order of the requests."""

    success: bool
    task_id: str
    total_requests: int
    total_processed: int
    failed_requests: int
    batch_results: list[BatchItem]
    processing_time_ms: float
    average_time_per_request: float
    timestamp: str


class BatchProgress(TypedDict):
    """Meta of the PROGRESS state."""

    processed: int
    total: int
    percent: float


class WarmEmbeddingCache(Payload):
    """Arguments of `warm_embedding_cache`; no `models` means every known embedding model."""

    texts: Annotated[list[str], Field(fail_fast=True)]
    models: Annotated[list[str], Field(fail_fast=True)] | None = None


class WarmCounts(TypedDict):
    """(text, model) pairs: newly cached, there already, failed."""

    warmed: int
    skipped: int
    errors: int


class WarmEmbeddingCacheResult(TypedDict):
    """Result of `warm_embedding_cache`."""

    success: bool
    task_id: NotRequired[str]
    cache_warming_results: WarmCounts
    models: list[str]
    processing_time_ms: float
    timestamp: str


GENERATE_EMBEDDING = TaskSpec(
    name="generate_embedding",
    queue=Queue.EMBEDDINGS,
    payload=GenerateEmbedding,
    result=GenerateEmbeddingResult,
)
BATCH_GENERATE_EMBEDDINGS = TaskSpec(
    name="batch_generate_embeddings",
    queue=Queue.EMBEDDINGS,
    payload=BatchGenerateEmbeddings,
    result=BatchGenerateEmbeddingsResult,
    lane=Lane.BATCH,
    track_started=True,
)
WARM_EMBEDDING_CACHE = TaskSpec(
    name="warm_embedding_cache",
    queue=Queue.EMBEDDINGS,
    payload=WarmEmbeddingCache,
    result=WarmEmbeddingCacheResult,
    lane=Lane.BATCH,
    track_started=True,
)

__all__ = [
    "BATCH_GENERATE_EMBEDDINGS",
    "GENERATE_EMBEDDING",
    "WARM_EMBEDDING_CACHE",
    "BatchGenerateEmbeddings",
    "BatchGenerateEmbeddingsResult",
    "BatchItem",
    "BatchProgress",
    "BatchRequest",
    "Dimensions",
    "EncodingFormat",
    "FailedRequest",
    "GenerateEmbedding",
    "GenerateEmbeddingResult",
    "InputType",
    "ItemError",
    "Texts",
    "WarmCounts",
    "WarmEmbeddingCache",
    "WarmEmbeddingCacheResult",
]
