"""Contracts: what services, clients and workers agree on. They evolve additively."""

from citadel_common.contracts.base import AnyTaskSpec, Lane, Payload, Queue, TaskSpec
from citadel_common.contracts.embeddings import (
    BATCH_GENERATE_EMBEDDINGS,
    GENERATE_EMBEDDING,
    WARM_EMBEDDING_CACHE,
)

TASKS: tuple[AnyTaskSpec, ...] = (GENERATE_EMBEDDING, BATCH_GENERATE_EMBEDDINGS, WARM_EMBEDDING_CACHE)
"""Every task of the product."""

__all__ = [
    "BATCH_GENERATE_EMBEDDINGS",
    "GENERATE_EMBEDDING",
    "TASKS",
    "WARM_EMBEDDING_CACHE",
    "AnyTaskSpec",
    "Lane",
    "Payload",
    "Queue",
    "TaskSpec",
]
