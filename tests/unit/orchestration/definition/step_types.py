"""The shipped step types, which are only checked here, and a small world to check definitions against."""

from citadel_orchestration.definition.parse import parse
from citadel_orchestration.steps.registry import shipped_types

TYPES = shipped_types(None, None).public


class World:
    """Knows two models, one collection and one endpoint."""

    def endpoint_problem(self, name):
        return None if name == "default" else f"there is no endpoint {name}"

    def model_dimensions(self, model):
        return {None: 768, "nomic-embed-text": 768, "bge-m3": 1024}.get(model)

    def collection_vectors(self, collection):
        return {"docs": {"": 768}}.get(collection)


def parsed(raw, **settings):
    return parse(raw, types=TYPES, catalog=World(), **settings)


def wait(step_id, **fields):
    """A step without further needs."""
    return {"step_id": step_id, "type": "wait", "parameters": {"duration": "1s"}, **fields}


def llm(step_id, query="why?", **fields):
    """A step that holds one text."""
    return {"step_id": step_id, "type": "llm_query", "parameters": {"query": query}, **fields}


def embedding(step_id, text="a text", **fields):
    """A step that makes a vector."""
    return {"step_id": step_id, "type": "embedding", "parameters": {"text": text}, **fields}


RAG = {
    "workflow_id": "rag-42",
    "idempotency_key": "req-8f2",
    "context": {"question": "..."},
    "deadline": "120s",
    "defaults": {
        "timeout": "30s",
        "retry": {"max_attempts": 4, "delay": "500ms", "factor": 2, "max_delay": "20s"},
    },
    "steps": [
        {
            "step_id": "q",
            "type": "embedding",
            "parameters": {"text": "${{ context.question }}", "model": "nomic-embed-text", "input_type": "query"},
        },
        {
            "step_id": "docs",
            "type": "vector_search",
            "depends_on": ["q"],
            "parameters": {"collection": "docs", "embedding": "${{ steps.q.output.embedding }}", "limit": 5},
        },
        {
            "step_id": "faq",
            "type": "vector_search",
            "depends_on": ["q"],
            "on_error": "continue",
            "parameters": {"collection": "faq", "embedding": "${{ steps.q.output.embedding }}"},
        },
        {
            "step_id": "answer",
            "type": "llm_query",
            "depends_on": ["docs", "faq"],
            "when": "size(steps.docs.output.hits) > 0",
            "parameters": {"query": "Context: ${{ steps.docs.output.hits }}\nQuestion: ${{ context.question }}"},
        },
    ],
    "output": "${{ steps.answer.output.text }}",
}
