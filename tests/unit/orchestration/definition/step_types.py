"""Small step types and a small world to check definitions against."""

from pydantic import Field, model_validator

from citadel_orchestration.definition.parse import parse
from citadel_orchestration.steps.base import Parameters, StepType, Wanted


class EmbeddingParameters(Parameters):
    text: str | list[str]
    model: str | None = None
    dimensions: int | None = None
    input_type: str | None = None


class LlmParameters(Parameters):
    query: str = Field(min_length=1)
    endpoint: str | None = None
    temperature: float = Field(0.0, ge=0, le=2)


class SearchParameters(Parameters):
    collection: str
    embedding: list[float] | None = None
    text: str | None = None
    model: str | None = None
    dimensions: int | None = None
    limit: int = Field(10, ge=1, le=100)

    @model_validator(mode="after")
    def _one_of_both(self):
        if (self.embedding is None) == (self.text is None):
            raise ValueError("give either embedding or text")
        return self


class Point(Parameters):
    id: int | str
    embedding: list[float] | None = None
    text: str | None = None


class UpsertParameters(Parameters):
    collection: str
    points: list[Point]
    model: str | None = None


class WorkflowParameters(Parameters):
    definition: dict
    context: dict | None = None


class WaitParameters(Parameters):
    duration: str | None = None
    signal: str | None = None


class _Type(StepType):
    async def execute(self, parameters, call):
        raise NotImplementedError


class Embedding(_Type):
    name = "embedding"
    parameters = EmbeddingParameters
    outputs = frozenset({"embedding", "embeddings", "model"})

    def wants(self, parameters):
        return Wanted(texts=[parameters.text] if isinstance(parameters.text, str) else parameters.text)


class Llm(_Type):
    name = "llm_query"
    parameters = LlmParameters
    outputs = frozenset({"text", "json"})

    def check(self, raw, known):
        problem = known.endpoint_problem(raw.get("endpoint") or "default")
        if problem:
            yield "/endpoint", problem


class Search(_Type):
    name = "vector_search"
    parameters = SearchParameters
    outputs = frozenset({"hits"})

    def wants(self, parameters):
        return None if parameters.text is None else Wanted(texts=[parameters.text])


class Upsert(_Type):
    name = "vector_upsert"
    parameters = UpsertParameters
    outputs = frozenset({"upserted", "ids"})


class Workflow(_Type):
    name = "workflow"
    parameters = WorkflowParameters
    outputs = frozenset({"output", "final_context"})


class Wait(_Type):
    name = "wait"
    parameters = WaitParameters
    outputs = frozenset()


TYPES = {kind.name: kind() for kind in (Embedding, Llm, Search, Upsert, Workflow, Wait)}


class World:
    """Knows two models, one collection and one endpoint."""

    def endpoint_problem(self, name):
        return None if name == "default" else f"there is no endpoint {name}"

    def model_dimensions(self, model):
        return {None: 768, "nomic-embed-text": 768, "bge-m3": 1024}.get(model)

    def collection_dimensions(self, collection):
        return {"docs": 768}.get(collection)


def parsed(raw, **settings):
    return parse(raw, types=TYPES, known=World(), **settings)


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
