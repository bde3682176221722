"""Contracts: what services, clients and workers agree on. They evolve additively."""

from citadel_common.contracts.base import AnyTaskSpec, Lane, Payload, Queue, TaskSpec
from citadel_common.contracts.embeddings import (
    BATCH_GENERATE_EMBEDDINGS,
    GENERATE_EMBEDDING,
    WARM_EMBEDDING_CACHE,
)
from citadel_common.contracts.workflows import (
    EMBED_STEPS,
    EXECUTE_WORKFLOW,
    QUERY_LLM_SERVICE,
    RUN_STEP,
    UPSERT_VECTORS,
    VECTOR_SIMILARITY_SEARCH,
)

TASKS: tuple[AnyTaskSpec, ...] = (
    GENERATE_EMBEDDING,
    BATCH_GENERATE_EMBEDDINGS,
    WARM_EMBEDDING_CACHE,
    EXECUTE_WORKFLOW,
    QUERY_LLM_SERVICE,
    VECTOR_SIMILARITY_SEARCH,
    UPSERT_VECTORS,
    RUN_STEP,
    EMBED_STEPS,
)
"""Every task of the product."""

__all__ = [
    "BATCH_GENERATE_EMBEDDINGS",
    "EMBED_STEPS",
    "EXECUTE_WORKFLOW",
    "GENERATE_EMBEDDING",
    "QUERY_LLM_SERVICE",
    "RUN_STEP",
    "TASKS",
    "UPSERT_VECTORS",
    "VECTOR_SIMILARITY_SEARCH",
    "WARM_EMBEDDING_CACHE",
    "AnyTaskSpec",
    "Lane",
    "Payload",
    "Queue",
    "TaskSpec",
]
