"""`/v1/embeddings` takes the bodies of other servers' clients: fields with a meaning count, others are named."""

from typing import Any

import httpx
import numpy as np
import pytest

from tests.integration.api.conftest import StartApi
from tests.integration.api.fake_worker import cache_vectors, vector_of
from tests.integration.api.servers import RedisServer
from tests.support.planted import CREDENTIALS

HEADER = "citadel-ignored-fields"
OTHERS = [
    pytest.param({"metadata": {"user": "u"}, "drop_params": True, "timeout": 600}, "metadata, drop_params, timeout"),
    pytest.param({"truncate": "END"}, None, id="cohere"),
    pytest.param({"truncate": "NONE"}, None, id="refuse"),
    pytest.param({"truncate": False, "truncation_direction": "Right", "normalize": True}, "normalize", id="tei"),
    pytest.param({"truncate_prompt_tokens": -1, "add_special_tokens": True}, "add_special_tokens", id="vllm"),
    pytest.param({"truncate_prompt_tokens": 256}, None, id="cut to tokens that the text has not"),
    pytest.param({"truncation": True, "output_dimension": 8, "output_dtype": "float"}, "output_dtype", id="voyage"),
    pytest.param({"task": "text-matching", "late_chunking": False}, "late_chunking", id="jina"),
    pytest.param({"task": "embed", "priority": 0}, "task, priority", id="task of another meaning"),
    pytest.param({"task_type": "SEMANTIC_SIMILARITY"}, None, id="google"),
    pytest.param({"input_type": "passage"}, None, id="nim"),
    pytest.param({"input_type": "search_query", "embedding_types": ["float"]}, "embedding_types", id="cohere types"),
    pytest.param({"input_type": "Classification"}, None, id="neither query nor document"),
    pytest.param({"keep_alive": "5m", "truncate": True}, "keep_alive", id="ollama"),
    pytest.param({"a\r\nb: ü": 1, "": 2, "😀": 3}, "a%0D%0Ab%3A%20%C3%BC, , %F0%9F%98%80", id="odd names"),
]
NULLS = dict.fromkeys(
    (
        *("model", "encoding_format", "dimensions", "user", "input_type", "options", "cache_enabled", "truncate"),
        *("truncate_prompt_tokens", "truncation", "truncation_side", "task", "output_dimension"),
    )
)


@pytest.fixture(autouse=True)
def cached(api_redis: RedisServer, models: None) -> None:
    """No worker runs: the text's vector is in the cache, so an answer says that no field changed its key."""
    cache_vectors(api_redis.url, ["hello", "long text"])


def embed(http: httpx.Client, fields: dict[str, Any], text: Any = "hello") -> httpx.Response:
    return http.post("/v1/embeddings", json={"input": text} | fields)


@pytest.mark.parametrize(("fields", "ignored"), OTHERS)
def test_fields_of_other_servers_pass_and_ignored_ones_are_named(
    http: httpx.Client, fields: dict[str, Any], ignored: str | None
) -> None:
    answer = embed(http, fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers.get(HEADER) == ignored
    np.testing.assert_array_equal(np.float32(answer.json()["data"][0]["embedding"]), vector_of("hello"))


def test_the_header_has_bounds(http: httpx.Client) -> None:
    names = [f"{'x' * 500}{number}" for number in range(200)]
    named = embed(http, dict.fromkeys(names, 1)).headers[HEADER].split(", ")
    assert (len(named), named[-1]) == (21, "and 180 more")
    assert {len(name) for name in named[:-1]} == {64}


def test_null_is_absent(http: httpx.Client) -> None:
    answer = embed(http, NULLS)
    assert answer.status_code == 200, answer.text
    assert HEADER not in answer.headers
    assert isinstance(answer.json()["data"][0]["embedding"], list)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"truncate": "MIDDLE"}, "truncate"),
        ({"truncation": 7}, "truncation"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"output_dimension": "8"}, "output_dimension"),
        ({"input_type": "query", "task": "retrieval.passage"}, "task"),
        ({"dimensions": 4, "output_dimension": 8}, "output_dimension"),
        ({"truncate": False, "truncation": True}, "truncation"),
    ],
)
def test_a_bad_or_contradicting_value_is_400_by_its_own_name(
    http: httpx.Client, fields: dict[str, Any], param: str
) -> None:
    answer = embed(http, fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "invalid_input")


def test_input_types_of_other_servers_are_the_query_and_the_document(http: httpx.Client) -> None:
    """Both have no prefix here, so their keys are those of a text without input type."""
    for name in ("query", "search_query", "RETRIEVAL_QUERY", "retrieval.query", "document", "passage", ""):
        assert embed(http, {"input_type": name}).status_code == 200, name


def test_a_text_that_was_cut_is_answered_unless_that_is_refused(http: httpx.Client) -> None:
    for _ in range(2):
        answer = embed(http, {}, "long text")
        assert answer.json()["citadel"] == {"cache_hits": 1, "truncated": [0]}


def test_a_strict_server_refuses_unknown_fields_with_near_names(start_api: StartApi, models: None) -> None:
    strict = start_api(unknown_fields="refuse")
    with httpx.Client(base_url=strict.url, headers=CREDENTIALS) as http:
        answer = embed(http, {"dimension": 8, "metadata": {}, "truncation": True})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "dimension")
        assert "did you mean 'dimensions'?" in error["message"]
        assert [bad["pointer"] for bad in error["errors"]] == ["/dimension", "/metadata"]
        assert embed(http, NULLS | {"truncate_prompt_tokens": -1}).status_code == 200


def test_an_input_type_in_the_header_is_checked_where_it_counts(http: httpx.Client) -> None:
    headers = {"citadel-input-type": "quarry"}
    answer = http.post("/v1/embeddings", json={"input": "hello"}, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_input", "citadel-input-type")
    body = {"input": "hello", "input_type": "query"}
    assert http.post("/v1/embeddings", json=body, headers=headers).status_code == 200


@pytest.mark.usefixtures("worker")
class TestMisses:
    def test_input_types_and_truncation_reach_the_worker(self, http: httpx.Client) -> None:
        for fields in (
            {"truncate": "START", "truncate_prompt_tokens": 3},
            {"truncate_prompt_tokens": 3},
            {"truncate": False},
        ):
            answer = embed(http, fields | {"input_type": "passage"}, "a text that is not in the cache")
            assert answer.status_code == 200, answer.text

    def test_a_cached_vector_of_a_cut_text_does_not_count_where_cutting_is_refused(self, http: httpx.Client) -> None:
        answer = embed(http, {"truncate": "NONE"}, "long text")
        assert answer.json()["citadel"]["cache_hits"] == 0


class TestModels:
    @pytest.mark.parametrize("name", ["nomic-embed-text", "nomic-embed-text:latest", "BAAI/bge-small:v1"])
    @pytest.mark.parametrize("encode", [str, lambda name: name.replace("/", "%2F").replace(":", "%3A")])
    def test_a_model_is_retrieved_by_its_id(self, http: httpx.Client, name: str, encode: Any) -> None:
        answer = http.get(f"/v1/models/{encode(name)}")
        assert answer.status_code == 200, answer.text
        listed = {model["id"]: model for model in http.get("/v1/models").json()["data"]}
        assert answer.json() == listed[name.removesuffix(":latest")]

    def test_an_unknown_model_is_404_in_openais_form(self, http: httpx.Client) -> None:
        answer = http.get("/v1/models/gpt/4")
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "nomic-embed-text" in error["message"]
