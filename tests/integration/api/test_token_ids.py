"""Token ids at `/v1/embeddings`, from the client to the built-in model and to servers that tokenize, and back."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest

from tests.doubles.process import OllamaProcess
from tests.integration.api.servers import Api, RedisServer, until
from tests.support.planted import CREDENTIALS
from tests.support.postgres_server import PostgresProcess
from tests.support.required import lacking
from tests.support.worker import BACKEND, WorkerProcess

LOCAL = "all-minilm"
SENTENCE = "the quick brown fox jumps over the lazy dog"
CL100K = [[9906, 1917], [32, 893, 374, 12459, 3691, 13], [791, 4062, 14198, 39935, 35308, 927, 279, 16053, 5679, 13]]
"""Ids of OpenAI's vocabulary, which LangChain sends unless it is told not to: "Hello world" and two sentences."""
WORKER = {
    f"{BACKEND}MODELS": "nomic-embed-text",
    "EMBEDDINGS__BACKENDS__builtin__KIND": "local",
    "EMBEDDINGS__BACKENDS__gateway__KIND": "openai",
    "EMBEDDINGS__BACKENDS__gateway__MODELS": "bge-m3",
    "EMBEDDINGS__LOCAL_THREADS": "1",
}


@dataclass(frozen=True, kw_only=True)
class Served:
    """The API, before a worker with the built-in model, an Ollama, and a gateway that does not tokenize."""

    http: httpx.Client

    def post(self, given: Any, **fields: Any) -> httpx.Response:
        """Embed with the built-in model, unless `model` says otherwise."""
        return self.http.post("/v1/embeddings", json={"input": given, "model": LOCAL} | fields)

    def vectors(self, given: Any, **fields: Any) -> Any:
        """Return the vectors of a request that succeeds."""
        answer = self.post(given, **fields)
        assert answer.status_code == 200, answer.text
        return np.float32([item["embedding"] for item in answer.json()["data"]])


@pytest.fixture(scope="module")
def served(
    postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory, word_pieces: Any
) -> Iterator[Served]:
    del word_pieces
    with RedisServer() as redis, postgres_server.database() as dsn, OllamaProcess(slots=4) as double:
        stores = {"CITADEL_BROKER_URL": redis.url, "CITADEL_POSTGRES_DSN": dsn, "CITADEL_API__WORKERS": "1"}
        api = Api(stores, tmp_path_factory.mktemp("api") / "log")
        worker = WorkerProcess(redis.url, double.url, EMBEDDINGS__BACKENDS__gateway__URLS=double.url, **WORKER)
        try:
            with worker, httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as http:
                found = Served(http=http)
                until(lambda: found.post("ready").status_code == 200, "the model")
                yield found
        finally:
            api.kill_all()


@pytest.fixture(scope="module")
def word_pieces() -> Any:
    """The built-in model's tokenizer."""
    if importlib.util.find_spec("tokenizers") is None or importlib.util.find_spec("ctranslate2") is None:
        lacking("the built-in model's packages are not installed")
    from citadel_embeddings.backends.local.tokens import WordPieces
    from citadel_embeddings.backends.local.weights import TOKENIZER

    return WordPieces(TOKENIZER.verified(), limit=256)


def test_ids_have_the_vectors_of_their_texts(served: Served, word_pieces: Any) -> None:
    expected = served.vectors([SENTENCE, "hello"])
    whole, bare = (word_pieces.encode(SENTENCE, special=special) for special in (True, False))
    hello = word_pieces.encode("hello", special=True)
    np.testing.assert_array_equal(served.vectors(whole), expected[:1])
    np.testing.assert_array_equal(served.vectors(bare), expected[:1])
    np.testing.assert_array_equal(served.vectors([hello, bare, hello]), expected[[1, 0, 1]])


def test_the_vector_of_ids_is_cached_under_their_text(served: Served, word_pieces: Any) -> None:
    served.vectors("cached by its text")
    answer = served.post(word_pieces.encode("cached by its text", special=True))
    assert answer.json()["citadel"] == {"cache_hits": 1, "truncated": []}


@pytest.mark.parametrize("ids", CL100K, ids=len)
def test_ids_of_another_vocabulary_are_refused_with_the_way_out(served: Served, ids: list[int]) -> None:
    for given, param in ((ids, "input"), ([ids], "input")):
        answer = served.post(given)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
        assert error["param"].startswith(param)
        assert "check_embedding_ctx_length=False" in error["message"]


def test_the_array_at_fault_is_named(served: Served, word_pieces: Any) -> None:
    good = word_pieces.encode(SENTENCE, special=True)
    error = served.post([good, [30522, 5]]).json()["error"]
    assert (error["param"], error["index"]) == ("input[1]", 1)


@pytest.mark.parametrize("model", ["nomic-embed-text", "bge-m3"])
def test_a_model_whose_tokenizer_is_not_at_hand_refuses_ids(served: Served, model: str) -> None:
    answer = served.post([[101, 7592, 102]], model=model)
    assert answer.status_code == 400
    assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ([[]], "input[0]"),
        ([[101, 102], []], "input[1]"),
        ([-1, 5], "input"),
        ([[2**31, 5]], "input[0]"),
        ([[1], "a"], "input"),
        (["a", [1]], "input[1]"),
        ([1.5, 2], "input[0]"),
        ([[[1]]], "input[0]"),
        ([True, False], "input[0]"),
        (5, "input"),
        ([None], "input[0]"),
        ([{"text": "a"}], "input[0]"),
    ],
)
def test_other_inputs_are_refused_by_their_place(served: Served, given: Any, param: str) -> None:
    answer = served.post(given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")
    assert answer.json()["error"]["param"].startswith(param)


class TestTruncation:
    LONG = f"{SENTENCE}. " * 60

    @pytest.mark.parametrize("start", [False, True])
    def test_a_text_is_cut_to_a_number_of_tokens(self, served: Served, word_pieces: Any, start: bool) -> None:
        side = {"truncation_side": "left"} if start else {}
        answer = served.post([self.LONG, "hello"], truncate_prompt_tokens=12, **side)
        assert answer.json()["citadel"]["truncated"] == [0]
        part = _part(self.LONG, 12, word_pieces, start=start)
        expected = served.vectors([part, "hello"])
        np.testing.assert_array_equal(np.float32([item["embedding"] for item in answer.json()["data"]]), expected)

    def test_the_beginning_of_a_text_that_is_too_long_is_cut(self, served: Served, word_pieces: Any) -> None:
        found = served.vectors(self.LONG, truncate="START")
        np.testing.assert_array_equal(found, served.vectors(_part(self.LONG, 256, word_pieces, start=True)))
        assert not np.array_equal(found, served.vectors(self.LONG, truncate="END"))

    def test_a_text_that_is_too_long_is_refused_where_it_may_not_be_cut(self, served: Served) -> None:
        for _ in range(2):
            error = served.post(["hello", self.LONG], truncate="NONE").json()["error"]
            assert (error["code"], error["param"]) == ("text_too_long", "input[1]")
            assert served.post(self.LONG).json()["citadel"]["truncated"] == [0]

    def test_as_many_tokens_as_the_model_reads_are_its_own_cut(self, served: Served) -> None:
        for limit in (-1, 256, 100_000):
            answer = served.post(self.LONG, truncate_prompt_tokens=limit)
            assert answer.json()["citadel"]["truncated"] == [0], answer.text

    def test_where_no_tokenizer_is_at_hand_a_limit_is_refused_unless_the_text_fits(self, served: Served) -> None:
        fields = {"model": "nomic-embed-text", "truncate_prompt_tokens": 10}
        assert served.post("short", **fields).status_code == 200
        error = served.post(self.LONG, **fields).json()["error"]
        assert (error["code"], error["param"]) == ("invalid_input", "truncate_prompt_tokens")

    def test_a_task_and_a_batch_cut_too(self, served: Served) -> None:
        body = {"text": [self.LONG, "hello"], "model": LOCAL, "truncate_prompt_tokens": 12}
        task = served.http.post("/v1/embeddings/tasks", json=body).headers["location"]
        until(lambda: served.http.get(task).json()["status"] == "succeeded", "the task")
        assert served.http.get(task).json()["result"]["truncated"] == [0]


def _part(text: str, most: int, word_pieces: Any, *, start: bool) -> str:
    """Return the longest part that has that many tokens."""
    fitting = [
        part
        for length in range(1, len(text))
        if len(word_pieces.encode(part := text[-length:] if start else text[:length], special=True)) <= most
    ]
    return max(fitting, key=len)
