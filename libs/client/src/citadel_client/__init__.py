"""Citadel's Python SDK and command line."""

from citadel_client._async.client import AsyncCitadel
from citadel_client._async.runs import AsyncRun
from citadel_client._async.tasks import AsyncTaskHandle
from citadel_client._sync.client import Citadel
from citadel_client._sync.runs import Run
from citadel_client._sync.tasks import TaskHandle
from citadel_client.chunks import Progress
from citadel_client.decoders import BatchAnswer
from citadel_client.embedding import EmbedOptions, Warmed
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
from citadel_client.models import DeadLetterFilters, RunFilters, SearchOptions, Validation, WorkflowPlan
from citadel_client.options import NEVER, RetryPolicy
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
    "DeadLetterFilters",
    "EmbedOptions",
    "Embedded",
    "Embeddings",
    "InvalidRequest",
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
