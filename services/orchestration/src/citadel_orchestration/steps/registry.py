"""All step types."""

from typing import Any

from citadel_orchestration.steps.base import StepType
from citadel_orchestration.steps.embedding import EmbeddingStep
from citadel_orchestration.steps.embedding_chunk import EmbeddingChunk
from citadel_orchestration.steps.llm_query import Asker, LlmQuery
from citadel_orchestration.steps.vector_search import VectorSearch
from citadel_orchestration.steps.vector_upsert import VectorUpsert
from citadel_orchestration.steps.wait import Wait
from citadel_orchestration.steps.workflow import Workflow
from citadel_orchestration.vectors.store import VectorStore


def public_types(llm: Asker, store: VectorStore) -> dict[str, StepType[Any]]:
    """The types that definitions may name."""
    types: list[StepType[Any]] = [
        EmbeddingStep(),
        LlmQuery(llm),
        VectorSearch(store),
        VectorUpsert(store),
        Workflow(),
        Wait(),
    ]
    return {type_.name: type_ for type_ in types}


def all_types(llm: Asker, store: VectorStore) -> dict[str, StepType[Any]]:
    """Those and the engine's own."""
    return public_types(llm, store) | {EmbeddingChunk.name: EmbeddingChunk()}
