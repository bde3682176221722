"""A question answered from stored documents, by way of the API and every process behind it."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.doubles.process import LlmProcess, OllamaProcess, QdrantProcess
from tests.integration.api.servers import Api
from tests.support import planted
from tests.support.fixtures import require_redis
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import CREDENTIALS, LLM_KEY, QDRANT_KEY
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess

MODEL = "nomic-embed-text"
FOUND = {"collection": "docs", "embedding": "${{ steps.q.output.embedding }}", "limit": 3}
QUERY = {"step_id": "q", "type": "embedding", "parameters": {"text": "${{ context.question }}", "model": MODEL}}
SEARCH = {"step_id": "docs", "type": "vector_search", "parameters": FOUND}
QUESTION = {
    "workflow_id": "rag",
    "context": {"question": planted.QUESTION},
    "steps": [
        QUERY,
        SEARCH,
        {
            "step_id": "answer",
            "type": "llm_query",
            "when": "size(steps.docs.output.hits) > 0",
            "parameters": {"query": "From ${{ steps.docs.output.hits }}: ${{ context.question }}"},
        },
    ],
    "output": {"answer": "${{ steps.answer.output.text }}", "hits": "${{ size(steps.docs.output.hits) }}"},
}


@pytest.fixture(scope="module")
def http(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Start the whole server; give a client of it."""
    require_redis()
    with (
        RedisProcess() as redis,
        postgres_server.database() as dsn,
        OllamaProcess(slots=4) as double,
        QdrantProcess() as qdrant,
        LlmProcess() as llm,
        WorkerProcess(redis.url, double.url),
    ):
        others = {
            "LLM__ENDPOINTS__main__URL": llm.url,
            "LLM__ENDPOINTS__main__MODEL": "tiny-llm",
            "LLM__ENDPOINTS__main__STYLE": "ollama",
            "LLM__ENDPOINTS__main__API_KEY": LLM_KEY,
            "QDRANT__URL": qdrant.url,
            "QDRANT__API_KEY": QDRANT_KEY,
        }
        shared = {"BROKER_URL": redis.url, "POSTGRES_DSN": dsn} | others
        with OrchestrationProcess(redis.url, dsn, others):
            environment = {f"CITADEL_{name}": str(value) for name, value in shared.items()}
            api = Api(environment, tmp_path_factory.mktemp("api") / "log")
            try:
                with httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as client:
                    yield client
            finally:
                api.kill_all()


def ended(http: httpx.Client, path: str) -> Any:
    return eventually(lambda: (run := http.get(path).json())["finished_at"] and run)


def test_a_question_is_answered_from_what_was_stored(http: httpx.Client) -> None:
    points = [{"id": number, "text": f"{planted.TEXT} {number}"} for number in range(5)]
    stored = http.post("/v1/collections/docs/points", json={"points": points, "model": MODEL})
    assert stored.json()["upserted"] == 5
    accepted = http.post("/v1/workflows", json=QUESTION)
    run = ended(http, accepted.headers["location"])
    assert run["status"] == "succeeded", run
    assert run["output"]["hits"] == 3
    assert isinstance(run["output"]["answer"], str)
    assert run["output"]["answer"]


def test_a_definition_that_cannot_fit_the_collection_is_refused_once_its_dimension_is_known(http: httpx.Client) -> None:
    """The vectors of one model are not looked for among another's."""
    short = QUERY | {"parameters": {"text": "a", "model": "all-minilm"}}
    definition = {"workflow_id": "misfit", "steps": [short, SEARCH]}
    refused = eventually(lambda: (answer := http.post("/v1/workflows", json=definition)).status_code == 422 and answer)
    assert "384" in refused.text
    assert "768" in refused.text
