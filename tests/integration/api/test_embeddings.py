"""`POST /v1/embeddings`: from the cache, through a worker, and by OpenAI's own client."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from citadel_contracts.errors import KINDS
from tests.doubles.process import OllamaProcess
from tests.integration.api.conftest import StartApi
from tests.integration.api.fake_worker import DIMENSIONS, cache_vectors, vector_of
from tests.integration.api.servers import Api, Program, RedisServer, until
from tests.support.planted import CREDENTIALS
from tests.support.postgres_server import PostgresProcess
from tests.support.web import web
from tests.support.worker import BACKEND, WorkerProcess

IMPATIENT = {
    f"{BACKEND}KIND": "openai",
    f"{BACKEND}TIMEOUT": "0.2",
    f"{BACKEND}CONNECT_TIMEOUT": "0.5",
    "EMBEDDINGS__PATIENCE": "2",
}
"""A backend of OpenAI's protocol, which is given up after a moment."""
BACKEND_ERRORS = [
    ("error500", 502, "backend_failed"),
    ("html502", 502, "backend_failed"),
    ("dead", 502, "backend_failed"),
    ("garbage_json", 502, "backend_failed"),
    ("hang", 504, "backend_timed_out"),
    ("rate429", 503, "backend_unavailable"),
    ("busy503", 503, "backend_unavailable"),
    ("auth401", 502, "backend_refused"),
    ("not_found404", 404, "model_not_found"),
]
TEXT_ERRORS = [
    ("too_long400", 400, "text_too_long"),
    ("runner400", 422, "text_rejected"),
    ("error500", 422, "text_rejected"),
    ("zero", 502, "bad_vector"),
]


@dataclass(frozen=True, kw_only=True)
class Real:
    """A real worker before a double of an embedding server, and a client of their API."""

    backend: OllamaProcess
    http: httpx.Client

    def error(self, texts: list[str], status: int) -> dict[str, Any]:
        """Return the error that the API answers with, and its Retry-After."""
        answer = self.http.post("/v1/embeddings", json={"input": texts})
        assert answer.status_code == status, answer.text
        return dict(answer.json()["error"]) | {"header": answer.headers.get("retry-after")}


@pytest.fixture(scope="module")
def real_stack(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with RedisServer() as redis, postgres_server.database() as dsn, OllamaProcess(slots=4) as backend:
        stores = {"CITADEL_BROKER_URL": redis.url, "CITADEL_POSTGRES_DSN": dsn}
        api = Api(stores | {"CITADEL_API__WORKERS": "1"}, tmp_path_factory.mktemp("api") / "log")
        try:
            with (
                WorkerProcess(redis.url, backend.url, **IMPATIENT),
                httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as http,
            ):
                yield Real(backend=backend, http=http)
        finally:
            api.kill_all()


@pytest.fixture
def real(real_stack: Real) -> Real:
    """The same, healthy: the breaker of the test before has closed."""
    real_stack.backend.reset()
    body = {"input": "well again", "cache_enabled": False}
    until(lambda: real_stack.http.post("/v1/embeddings", json=body).status_code == 200, "recovery")
    return real_stack


@pytest.fixture
def computed(api_redis: RedisServer) -> list[str]:
    """The texts that the worker has computed during the test, read at each use."""
    api_redis.store.delete("computed")

    class Computed(list[str]):
        def __iter__(self) -> Iterator[str]:
            return iter([text.decode() for text in api_redis.store.lrange("computed", 0, -1)])

    return Computed()


@pytest.fixture
def openai_client(api: Api) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def vectors_in(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    return [item["embedding"] for item in data]


class TestHits:
    """No worker runs: all vectors come from the cache."""

    def test_hits_need_no_broker(self, http: httpx.Client, api_redis: RedisServer) -> None:
        cache_vectors(api_redis.url, ["cached a", "cached b"])
        answer = http.post("/v1/embeddings", json={"input": ["cached b", "cached a", "cached b"]})
        expected = [vector_of(text).tolist() for text in ("cached b", "cached a", "cached b")]
        np.testing.assert_array_equal(np.float32(vectors_in(answer)), np.float32(expected))
        assert answer.json()["citadel"] == {"cache_hits": 3, "truncated": []}
        assert answer.json()["usage"] == {"prompt_tokens": 0, "total_tokens": 0}
        assert answer.json()["model"] == "nomic-embed-text"
        assert not api_redis.store.llen("embeddings")

    def test_both_encodings_are_the_same_vector(self, http: httpx.Client, api_redis: RedisServer) -> None:
        cache_vectors(api_redis.url, ["cached c"])
        for _ in range(2):
            body = {"input": "cached c", "encoding_format": "base64"}
            (encoded,) = [item["embedding"] for item in http.post("/v1/embeddings", json=body).json()["data"]]
            assert base64.b64decode(encoded) == vector_of("cached c").tobytes()
            (numbers,) = vectors_in(http.post("/v1/embeddings", json={"input": "cached c"}))
            assert np.float32(numbers).tobytes() == vector_of("cached c").tobytes()

    def test_a_truncated_text_is_reported_on_every_hit(self, http: httpx.Client, api_redis: RedisServer) -> None:
        cache_vectors(api_redis.url, ["long text", "short text"])
        for _ in range(2):
            answer = http.post("/v1/embeddings", json={"input": ["short text", "long text"]})
            assert answer.json()["citadel"]["truncated"] == [1]

    def test_a_model_is_found_with_its_latest_tag(self, http: httpx.Client, api_redis: RedisServer) -> None:
        cache_vectors(api_redis.url, ["tagged"])
        answer = http.post("/v1/embeddings", json={"input": "tagged", "model": "nomic-embed-text:latest"})
        assert answer.status_code == 200


@pytest.mark.usefixtures("worker")
class TestMisses:
    def test_only_missing_texts_are_sent_once_each(
        self, http: httpx.Client, api_redis: RedisServer, computed: list[str]
    ) -> None:
        cache_vectors(api_redis.url, ["known 1", "known 2"])
        texts = ["new b", "known 1", "new a", "new b", "known 2", "long new", "new a"]
        answer = http.post("/v1/embeddings", json={"input": texts})
        expected = [vector_of(text).tolist() for text in texts]
        np.testing.assert_array_equal(np.float32(vectors_in(answer)), np.float32(expected))
        assert list(computed) == ["new b", "new a", "long new"]
        assert answer.json()["citadel"] == {"cache_hits": 2, "truncated": [5]}
        assert answer.json()["usage"]["prompt_tokens"] == 9

    def test_a_request_can_bypass_the_cache(
        self, http: httpx.Client, api_redis: RedisServer, computed: list[str]
    ) -> None:
        cache_vectors(api_redis.url, ["cached but unwanted"])
        answer = http.post("/v1/embeddings", json={"input": "cached but unwanted", "cache_enabled": False})
        assert answer.json()["citadel"]["cache_hits"] == 0
        assert list(computed) == ["cached but unwanted"]

    @pytest.mark.parametrize("field", [{"dimensions": 4}, {"input_type": "query"}, {"options": {"num_ctx": 512}}])
    def test_fields_that_change_the_vector_miss_the_cache(
        self, http: httpx.Client, api_redis: RedisServer, computed: list[str], field: dict[str, object]
    ) -> None:
        text = f"varied {sorted(field)}"
        cache_vectors(api_redis.url, [text])
        assert http.post("/v1/embeddings", json={"input": text} | field).status_code == 200
        assert list(computed) == ([] if field == {"input_type": "query"} else [text])

    def test_results_are_removed_from_redis(self, http: httpx.Client, api_redis: RedisServer) -> None:
        assert http.post("/v1/embeddings", json={"input": "leaves nothing"}).status_code == 200
        until(lambda: not api_redis.store.keys("celery-task-meta-*"), "removal of the result")

    def test_the_error_names_the_first_refused_text(self, http: httpx.Client) -> None:
        texts = ["fine", "refuse a", "fine", "refuse b"]
        error = http.post("/v1/embeddings", json={"input": texts}).json()["error"]
        assert (error["param"], error["field"], error["index"]) == ("input[1]", "input", 1)
        assert error["message"] == "input[1]: the backend refuses it (and 1 more)"
        alone = http.post("/v1/embeddings", json={"input": "refuse a"}).json()["error"]
        assert alone["message"] == "input: the backend refuses it"

    def test_concurrent_requests_get_their_own_vectors(self, http: httpx.Client) -> None:
        def embed(number: int) -> bool:
            texts = [f"parallel {number} {index}" for index in range(5)]
            answer = http.post("/v1/embeddings", json={"input": texts})
            expected = [vector_of(text).tolist() for text in texts]
            return np.array_equal(np.float32(vectors_in(answer)), np.float32(expected))

        with ThreadPoolExecutor(24) as threads:
            assert all(threads.map(embed, range(120)))

    @pytest.mark.parametrize("encoding", ["float", "base64"])
    def test_the_openai_client_embeds_a_list(self, openai_client: openai.OpenAI, encoding: Any) -> None:
        answer = openai_client.embeddings.create(
            input=["by openai", "and again"], model="nomic-embed-text", encoding_format=encoding
        )
        assert [item.index for item in answer.data] == [0, 1]

    def test_the_openai_client_decodes_the_vector_of_a_text(self, openai_client: openai.OpenAI) -> None:
        plain = openai_client.embeddings.create(input="by openai", model="nomic-embed-text")
        np.testing.assert_array_equal(np.float32(plain.data[0].embedding), vector_of("by openai"))

    def test_the_openai_client_lists_models(self, openai_client: openai.OpenAI) -> None:
        assert [model.id for model in openai_client.models.list()] == [
            "BAAI/bge-small:v1",
            "all-minilm",
            "nomic-embed-text",
        ]

    def test_the_openai_client_raises_its_own_errors(self, openai_client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="available"):
            openai_client.embeddings.create(input="a", model="gpt")
        with pytest.raises(openai.BadRequestError):
            openai_client.embeddings.create(input=[], model="nomic-embed-text")

    def test_without_a_catalog_the_worker_decides(
        self, start_api: StartApi, api_redis: RedisServer, computed: list[str]
    ) -> None:
        catalogue = api_redis.store.get("citadel:models")
        api_redis.store.delete("citadel:models")
        try:
            api = start_api()
            body = {"input": ["x", "y", "x"], "model": "whatever"}
            answer = web.post(f"{api.url}/v1/embeddings", json=body, timeout=60)
            assert len(vectors_in(answer)) == 3
            assert list(computed) == ["x", "y", "x"]
            assert len(vectors_in(answer)[0]) == DIMENSIONS
        finally:
            api_redis.store.set("citadel:models", catalogue)

    def test_a_client_that_disconnects_harms_no_other(self, http: httpx.Client, api_redis: RedisServer) -> None:
        api_redis.store.delete("started")
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/embeddings", json={"input": "wait on patience"}, timeout=0.5)
        api_redis.store.blpop("started", timeout=60)
        api_redis.store.lpush("patience", 1)
        assert http.post("/v1/embeddings", json={"input": "after the one who left"}).status_code == 200


@pytest.mark.usefixtures("worker")
def test_a_result_is_found_by_polling_if_its_announcement_is_lost(http: httpx.Client, api_redis: RedisServer) -> None:
    """The subscription is cut while a request waits."""
    api_redis.store.delete("started")
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(http.post, "/v1/embeddings", json={"input": "wait on cut"})
        api_redis.store.blpop("started", timeout=60)
        assert api_redis.store.client_kill_filter(_type="pubsub") >= 1
        api_redis.store.lpush("cut", 1)
        assert answer.result().status_code == 200


def test_deadline(start_api: StartApi, api_redis: RedisServer, models: None, worker: Program) -> None:
    """A worker that does not finish in time is a 504; a task left in the queue does not run later."""
    api = start_api(request_timeout=0.5)
    answer = web.post(f"{api.url}/v1/embeddings", json={"input": "wait on deadline"}, timeout=60)
    api_redis.store.lpush("deadline", 1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


class TestFailures:
    @pytest.mark.parametrize(("mode", "status", "code"), BACKEND_ERRORS)
    def test_a_failing_backend_gives_its_code(self, real: Real, mode: str, status: int, code: str) -> None:
        real.backend.behaviour(mode)
        error = real.error(["a", "b"], status)
        assert (error["code"], error["retryable"]) == (code, KINDS[code].retryable)
        assert (error["header"] is not None) == KINDS[code].retryable

    @pytest.mark.parametrize(("mark", "status", "code"), TEXT_ERRORS)
    def test_a_text_that_the_backend_cannot_embed_is_named(self, real: Real, mark: str, status: int, code: str) -> None:
        error = real.error([f"before {mark}", f"bad [[{mark}]]", f"after {mark}"], status)
        assert (error["code"], error["param"], error["field"], error["index"]) == (code, "input[1]", "input", 1)
        assert error["message"].startswith("input[1]: ")
        assert (error["header"] is not None) == KINDS[code].retryable

    def test_texts_that_are_all_too_long_give_400(self, real: Real) -> None:
        real.backend.behaviour("too_long400")
        error = real.error(["a", "b"], 400)
        assert (error["code"], error["param"], error["type"]) == ("text_too_long", "input[0]", "invalid_request_error")

    def test_the_delay_that_a_backend_asks_for_is_passed_on(self, real: Real) -> None:
        real.backend.behaviour("rate429", retry_after_s=21)
        assert real.error(["a"], 503)["header"] == "21"

    def test_a_backend_that_is_away_gives_503(self, real: Real) -> None:
        real.backend.kill()
        try:
            error = real.error(["a"], 503)
        finally:
            real.backend.restart_same_port()
        assert (error["code"], error["header"]) == ("backend_unavailable", "5")
