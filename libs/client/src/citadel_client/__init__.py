"""Citadel's Python SDK and command line."""

from citadel_client.async_client import AsyncCitadel
from citadel_client.calls import EmbedOptions, Warmed
from citadel_client.chunks import Progress
from citadel_client.client import Citadel
from citadel_client.errors import (
    CallTimedOut,
    CitadelApiError,
    InvalidRequest,
    NotAuthorized,
    NotFound,
    RateLimited,
    ServerFailed,
    ServerUnreachable,
    ServiceUnavailable,
    TaskFailed,
    TextsFailed,
    UnexpectedReply,
)
from citadel_client.retries import NEVER, RetryPolicy
from citadel_client.tasks import AsyncTaskHandle, TaskHandle
from citadel_client.vectors import Embedded, Embeddings

__all__ = [
    "NEVER",
    "AsyncCitadel",
    "AsyncTaskHandle",
    "CallTimedOut",
    "Citadel",
    "CitadelApiError",
    "EmbedOptions",
    "Embedded",
    "Embeddings",
    "InvalidRequest",
    "NotAuthorized",
    "NotFound",
    "Progress",
    "RateLimited",
    "RetryPolicy",
    "ServerFailed",
    "ServerUnreachable",
    "ServiceUnavailable",
    "TaskFailed",
    "TaskHandle",
    "TextsFailed",
    "UnexpectedReply",
    "Warmed",
]
