"""Contracts: what services, clients and workers agree on. They evolve additively."""

from citadel_contracts.base import AnyTaskSpec, Lane, Payload, Queue, TaskSpec
from citadel_contracts.embeddings import (
    BATCH_GENERATE_EMBEDDINGS,
    GENERATE_EMBEDDING,
    WARM_EMBEDDING_CACHE,
)
from citadel_contracts.maintenance import (
    ADVISE_VACUUM,
    CLEANUP_EXPIRED_CACHE,
    PURGE_DEAD_LETTERS,
    PURGE_ORPHANS,
    PURGE_RESULTS,
    PURGE_RUNS,
    REROUTE_MESSAGES,
)
from citadel_contracts.monitoring import COLLECT_SYSTEM_METRICS, SYSTEM_HEALTH_CHECK
from citadel_contracts.workflows import (
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
    SYSTEM_HEALTH_CHECK,
    COLLECT_SYSTEM_METRICS,
    CLEANUP_EXPIRED_CACHE,
    PURGE_RUNS,
    PURGE_RESULTS,
    PURGE_DEAD_LETTERS,
    PURGE_ORPHANS,
    REROUTE_MESSAGES,
    ADVISE_VACUUM,
)
"""Every task of the product."""

__all__ = [
    "ADVISE_VACUUM",
    "BATCH_GENERATE_EMBEDDINGS",
    "CLEANUP_EXPIRED_CACHE",
    "COLLECT_SYSTEM_METRICS",
    "EMBED_STEPS",
    "EXECUTE_WORKFLOW",
    "GENERATE_EMBEDDING",
    "PURGE_DEAD_LETTERS",
    "PURGE_ORPHANS",
    "PURGE_RESULTS",
    "PURGE_RUNS",
    "QUERY_LLM_SERVICE",
    "REROUTE_MESSAGES",
    "RUN_STEP",
    "SYSTEM_HEALTH_CHECK",
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
