"""The product as `docker compose up` starts it, through its published ports."""

import uuid

import numpy as np
import pytest

from citadel_client import Citadel
from citadel_client.errors import CitadelApiError
from tests.deploy.load import DOCUMENTS, MODEL, workflow
from tests.deploy.stack import EMBEDDING_MODEL, LLM, WORKERS, Stack
from tests.doubles.ollama.vectors import expected_vector
from tests.support.local_model import CASES, cosine, text_of, vector_of
from tests.support.polling import eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]

DURATION = 300.0


def test_a_question_finds_its_document_by_meaning_and_is_answered_by_an_llm(stack):
    with stack.client() as citadel:
        run = citadel.workflows.submit(workflow("How do I shrink a big file?")).wait(DURATION)
    assert run.status == "succeeded"
    hits, answer = run.output["hits"], run.output["answer"]
    assert hits[0]["payload"]["text"] == DOCUMENTS[2]
    assert len(hits) == 2
    assert answer["model"] == LLM
    assert answer["text"]
    assert answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("name", ["plain sentence", "its published neighbour", "dog", "emoji", "Chinese", "code"])
def test_the_model_of_a_file_computes_the_published_vectors(stack, name):
    """Of texts that the tokenizers of Ollama and of the reference split alike; they do not so in each language."""
    case = CASES[name]
    with stack.client() as citadel:
        found = citadel.embed(text_of(case), model=EMBEDDING_MODEL).array[0]
    assert cosine(found, vector_of(case)) > 0.999


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
