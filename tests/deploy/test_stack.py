"""The product as `docker compose up` starts it, through its published ports."""

import uuid

import numpy as np
import pytest

from citadel_client import Citadel
from citadel_client.errors import CitadelApiError
from tests.deploy.stack import WORKERS, Stack
from tests.doubles.ollama.vectors import expected_vector
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

MODEL = "nomic-embed-text"
DOCS = {
    "zlib": "compress and decompress data",
    "csv": "read and write tables of comma separated values",
    "argparse": "parse the arguments of a command line",
}
DURATION = 300.0


def demo_workflow(question: str) -> dict:
    return {
        "workflow_id": "stack",
        "context": {"question": question},
        "steps": [
            {
                "step_id": "q",
                "type": "embedding",
                "parameters": {"text": "${{ context.question }}", "model": MODEL, "input_type": "query"},
            },
            {
                "step_id": "docs",
                "type": "vector_search",
                "parameters": {"collection": "docs", "embedding": "${{ steps.q.output.embedding }}", "limit": 2},
            },
            {
                "step_id": "answer",
                "type": "llm_query",
                "parameters": {"query": "${{ context.question }} ${{ steps.docs.output.hits }}"},
            },
        ],
        "output": "${{ steps.answer.output.text }}",
    }


def stored(stack: Stack) -> None:
    with stack.client() as citadel:
        points = [{"id": number, "text": text} for number, text in enumerate(DOCS.values(), start=1)]
        citadel.collections.store("docs", points, model=MODEL)


def test_a_question_is_answered_from_documents_by_a_workflow(stack):
    stored(stack)
    with stack.client() as citadel:
        run = citadel.workflows.submit(demo_workflow(DOCS["csv"])).wait(DURATION)
        assert run.status == "succeeded"
        assert run.output
        nearest = expected_vector(MODEL, f"search_document: {DOCS['csv']}").tolist()
        found = citadel.collections.search("docs", embedding=nearest, limit=1)
        assert found[0].id == 2


def test_two_thousand_texts_come_back_in_order_each_with_its_vector(stack):
    texts = [f"text {number} of a batch" for number in range(2000)]
    with stack.client() as citadel:
        run = citadel.batches.submit(texts, model=MODEL)
        answers = list(run.results(timeout=DURATION))
    assert len(answers) == len(texts)
    for text, answer in zip(texts, answers, strict=True):
        assert np.allclose(answer.embeddings.array[0], expected_vector(MODEL, text), atol=1e-6)


def test_three_embeddings_workers_share_the_work_and_prometheus_sees_each(stack):
    stack.compose("up", "--detach", "--no-recreate", "--scale", "embeddings=3", "embeddings")
    stack.wait_healthy("embeddings")
    with stack.client() as citadel:
        eventually(lambda: len(of_queue(citadel, "embeddings")) == 3)
        before = {worker.id: worker.processed for worker in of_queue(citadel, "embeddings")}

        def all_have_worked() -> bool:
            texts = [f"shared {uuid.uuid4()}" for _ in range(400)]
            assert sum(item.error is None for item in citadel.embed_many(texts, chunk_size=4, parallel=8)) == 400
            now = {worker.id: worker.processed for worker in of_queue(citadel, "embeddings")}
            return now.keys() == before.keys() and all(now[one] > before[one] for one in now)

        eventually(all_have_worked, timeout=DURATION)
    eventually(lambda: [one["health"] for one in targets(stack, "embeddings")] == ["up"] * 3, timeout=DURATION)


def test_prometheus_scrapes_every_process_with_a_key_where_one_is_asked_for(stack):
    expected_targets = {*WORKERS, "beat", "api", "exporter"}
    found = eventually(
        lambda: (up := {service for service in expected_targets if all_up(stack, service)}) == expected_targets and up,
        timeout=DURATION,
    )
    assert found == expected_targets


def test_spans_of_a_run_arrive_from_every_service_involved(stack):
    stored(stack)
    trace = uuid.uuid4().hex
    with stack.client() as citadel:
        citadel._connection._http.headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
        citadel.workflows.submit(demo_workflow("from where do the spans come?")).wait(DURATION)
    services = {"citadel-api", "citadel-orchestration", "citadel-embeddings"}
    eventually(lambda: services <= stack.get("OTLP", "/").get(trace, {}).keys(), timeout=DURATION)


def test_a_caller_without_a_key_is_refused(stack):
    with Citadel(f"http://127.0.0.1:{stack.ports['API']}", "wrong") as citadel, pytest.raises(CitadelApiError):
        citadel.embed("hello")


def of_queue(citadel, queue: str) -> list:
    return [worker for worker in citadel.workers() if worker.queue == queue]


def targets(stack: Stack, service: str) -> list[dict]:
    active = stack.get("PROMETHEUS", "/api/v1/targets?state=active")["data"]["activeTargets"]
    return [one for one in active if service in _names(one["labels"])]


def _names(labels: dict[str, str]) -> set[str]:
    return {labels.get("service", ""), labels["job"].removeprefix("citadel-")}


def all_up(stack: Stack, service: str) -> bool:
    found = targets(stack, service)
    return bool(found) and all(one["health"] == "up" for one in found)
