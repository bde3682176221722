"""What clients get from the whole server, by each way in."""

import base64

import numpy as np
import openai
import pytest
from openai import OpenAI

from tests.doubles.ollama.vectors import expected_vector
from tests.e2e.conftest import Server
from tests.support.celery_client import PlainClient
from tests.support.planted import TEXT
from tests.support.polling import eventually
from tests.support.web import web

MODEL = "nomic-embed-text"


@pytest.fixture
def client(ready: Server) -> OpenAI:
    return OpenAI(base_url=f"{ready.api.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_openai_client_gets_vectors_cold_and_from_the_cache(client: OpenAI, encoding: str) -> None:
    texts = [f"{TEXT} {encoding} first", f"{TEXT} {encoding} second", f"{TEXT} {encoding} first"]
    for _ in range(2):
        answer = client.embeddings.create(model=MODEL, input=texts, encoding_format=encoding)
        assert [item.index for item in answer.data] == [0, 1, 2]
        for item, text in zip(answer.data, texts, strict=True):
            np.testing.assert_allclose(_floats(item.embedding), expected_vector(MODEL, text), atol=1e-6)


def test_the_openai_client_decodes_its_own_default_format(client: OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input="as the client likes it")
    np.testing.assert_allclose(answer.data[0].embedding, expected_vector(MODEL, "as the client likes it"), atol=1e-6)


def test_the_openai_client_gets_shorter_vectors(client: OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input="short", dimensions=64)
    np.testing.assert_allclose(answer.data[0].embedding, expected_vector(MODEL, "short", 64), atol=1e-6)


def test_the_openai_client_raises_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="no-such-model", input="text")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as empty:
        client.embeddings.create(model=MODEL, input=["good", ""])
    assert "input[1]" in empty.value.message


def test_a_text_that_the_backend_refuses_is_named(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model=MODEL, input=["good", "bad [[nan]]"])
    assert "input[1]" in refused.value.message


def test_a_task_is_accepted_runs_and_shows_its_result(ready: Server) -> None:
    task_id = ready.submit(["a task", "of two"], model=MODEL, encoding_format="base64")
    status = eventually(lambda: ready.finished(task_id))
    assert status["status"] == "succeeded"
    vectors = [_floats(vector) for vector in status["result"]["embeddings"]]
    np.testing.assert_allclose(vectors, [expected_vector(MODEL, t) for t in ("a task", "of two")], atol=1e-6)


def test_warming_makes_hits_for_every_way_in(ready: Server, plain: PlainClient) -> None:
    texts = [f"{TEXT} warm {number}" for number in range(20)]
    answer = ready.http.post("/v1/cache/warm", json={"texts": texts, "models": [MODEL]})
    status = eventually(lambda: ready.finished(answer.json()["task_id"]))
    assert status["result"]["cache_warming_results"] == {"warmed": 20, "skipped": 0, "errors": 0}
    assert plain.call("generate_embedding", texts, model=MODEL)["cache_hits"] == 20
    body = ready.http.post("/v1/embeddings", json={"input": texts, "model": MODEL}).json()
    assert body["citadel"]["cache_hits"] == 20


def test_what_was_computed_for_a_celery_client_is_a_hit_of_the_api(ready: Server, plain: PlainClient) -> None:
    plain.call("generate_embedding", "seen by celery", model=MODEL)
    before = ready.double.stats()["requests"]
    body = ready.http.post("/v1/embeddings", json={"input": "seen by celery", "model": MODEL}).json()
    assert body["citadel"]["cache_hits"] == 1
    assert ready.double.stats()["requests"] == before


def test_a_truncated_text_is_said_cold_and_from_the_cache(ready: Server) -> None:
    request = {"input": ["short", "word " * 3000], "model": MODEL}
    for _ in range(2):
        assert ready.http.post("/v1/embeddings", json=request).json()["citadel"]["truncated"] == [1]


def test_an_interactive_request_does_not_wait_for_queued_batches(ready: Server, plain: PlainClient) -> None:
    """The double takes 100 ms a text on 4 slots: the batches alone need many seconds."""
    ready.double.behaviour("slow", delay_ms=100)
    batch = [{"text": f"{TEXT} batch {number}", "model": MODEL} for number in range(200)]
    queued = [
        plain.publish("batch_generate_embeddings", [batch[i::20]], {"batch_size": 1}, priority=6) for i in range(20)
    ]
    answer = ready.http.post("/v1/embeddings", json={"input": "urgent", "model": MODEL})
    assert answer.status_code == 200
    assert not all(task.ready() for task in queued)
    ready.double.behaviour("ok")
    for task in queued:
        assert task.get(timeout=60)["failed_requests"] == 0


def test_operators_see_queues_workers_models_and_health(ready: Server) -> None:
    queues = {queue["name"]: queue for queue in ready.http.get("/v1/queues").json()["queues"]}
    assert queues["embeddings"]["workers"] == 1
    [worker] = ready.http.get("/v1/workers").json()["workers"]
    assert worker["queue"] == "embeddings"
    eventually(lambda: MODEL in {model["id"] for model in ready.http.get("/v1/models").json()["data"]})
    assert ready.http.get("/readyz").status_code == 200


def _floats(embedding: object) -> object:
    return np.frombuffer(base64.b64decode(embedding), dtype="<f4") if isinstance(embedding, str) else embedding


def test_a_body_that_is_no_json_names_the_problem(ready: Server) -> None:
    answer = web.post(f"{ready.api.url}/v1/embeddings/tasks", content=b'{"text": "%b\xff"}' % TEXT.encode())
    assert answer.status_code in (400, 415)
    assert answer.json()["trace_id"]
