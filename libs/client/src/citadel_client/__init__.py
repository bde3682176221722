"""Citadel's Python SDK and command line."""

from citadel_client.async_client import AsyncCitadel
from citadel_client.async_runs import AsyncRun
from citadel_client.calls import EmbedOptions, Warmed
from citadel_client.chunks import Progress
from citadel_client.client import Citadel
from citadel_client.decoders import BatchAnswer
from citadel_client.errors import (
    CallTimedOut,
    CitadelApiError,
    Conflict,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    RateLimited,
    RunFailed,
    ServerFailed,
    ServerUnreachable,
    ServiceUnavailable,
    TaskFailed,
    TextsFailed,
    UnexpectedReply,
)
from citadel_client.operation_calls import LetterFilters
from citadel_client.retries import NEVER, RetryPolicy
from citadel_client.run_calls import RunFilters, SearchOptions, Validation, WorkflowPlan
from citadel_client.runs import Run
from citadel_client.tasks import AsyncTaskHandle, TaskHandle
from citadel_client.vectors import Embedded, Embeddings

__all__ = [
    "NEVER",
    "AsyncCitadel",
    "AsyncRun",
    "AsyncTaskHandle",
    "BatchAnswer",
    "CallTimedOut",
    "Citadel",
    "CitadelApiError",
    "Conflict",
    "EmbedOptions",
    "Embedded",
    "Embeddings",
    "InvalidRequest",
    "LetterFilters",
    "NotAuthorized",
    "NotFound",
    "Progress",
    "RateLimited",
    "RetryPolicy",
    "Run",
    "RunFailed",
    "RunFilters",
    "SearchOptions",
    "ServerFailed",
    "ServerUnreachable",
    "ServiceUnavailable",
    "TaskFailed",
    "TaskHandle",
    "TextsFailed",
    "UnexpectedReply",
    "Validation",
    "Warmed",
    "WorkflowPlan",
]
