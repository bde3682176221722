"""The step types that Citadel ships."""

from citadel_orchestration.step_types import StepTypes
from citadel_orchestration.steps.embedding import EmbeddingStep
from citadel_orchestration.steps.embedding_chunk import EmbeddingChunk
from citadel_orchestration.steps.llm_query import LlmClient, LlmQuery
from citadel_orchestration.steps.vector_search import VectorSearch
from citadel_orchestration.steps.vector_upsert import VectorUpsert
from citadel_orchestration.steps.wait import WaitStep
from citadel_orchestration.steps.workflow import WorkflowStep
from citadel_orchestration.vectors.store import VectorStore


def shipped_types(llm: LlmClient, store: VectorStore) -> StepTypes:
    """Return the types, which call these LLM endpoints and this vector store."""
    return StepTypes(
        [
            EmbeddingStep(),
            EmbeddingChunk(),
            LlmQuery(llm),
            VectorSearch(store),
            VectorUpsert(store),
            WorkflowStep(),
            WaitStep(),
        ]
    )
