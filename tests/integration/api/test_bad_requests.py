"""Invalid requests: the error names the field, and nothing is enqueued."""

from typing import Any

import httpx
import pytest

from tests.integration.api.servers import RedisServer

LISTS = ("embeddings", "embeddings\x06\x163", "embeddings\x06\x166", "embeddings\x06\x169")

OPENAI_CASES = [
    pytest.param({}, 400, "input", "invalid_input", id="no input"),
    pytest.param({"input": []}, 400, "input", "invalid_input", id="no texts"),
    pytest.param({"input": ""}, 400, "input", "invalid_input", id="empty text"),
    pytest.param({"input": ["a", ""]}, 400, "input[1]", "invalid_input", id="empty text in list"),
    pytest.param({"input": ["a", 1]}, 400, "input[1]", "invalid_input", id="number in list"),
    pytest.param({"input": [1, 2]}, 400, "input", "invalid_input", id="token ids"),
    pytest.param({"input": [[1, 2], [3]]}, 400, "input", "invalid_input", id="lists of token ids"),
    pytest.param({"input": {"text": "a"}}, 400, "input", "invalid_input", id="object"),
    pytest.param({"input": ["a"] * 2049}, 400, "input", "invalid_input", id="too many texts"),
    pytest.param({"input": "a" * 200_001}, 400, "input", "invalid_input", id="text too long"),
    pytest.param({"input": "a", "model": "unknown"}, 404, "model", "model_not_found", id="unknown model"),
    pytest.param({"input": "a", "model": 7}, 400, "model", "invalid_input", id="model is a number"),
    pytest.param({"input": "a", "dimensions": 0}, 400, "dimensions", "invalid_input", id="no dimensions"),
    pytest.param({"input": "a", "dimensions": "8"}, 400, "dimensions", "invalid_input", id="dimensions as text"),
    pytest.param({"input": "a", "dimensions": 9}, 400, "dimensions", "invalid_input", id="too many dimensions"),
    pytest.param(
        {"input": "a", "dimensions": 3, "model": "all-minilm"}, 400, "dimensions", "invalid_input", id="cannot shorten"
    ),
    pytest.param({"input": "a", "encoding_format": "hex"}, 400, "encoding_format", "invalid_input", id="encoding"),
    pytest.param({"input": "a", "input_type": "poem"}, 400, "input_type", "invalid_input", id="input type"),
    pytest.param({"input": "a", "options": {"seed": 10**30}}, 400, "options.seed", "invalid_input", id="huge integer"),
    pytest.param({"input": "a", "cache_enabled": "no"}, 400, "cache_enabled", "invalid_input", id="cache_enabled"),
]

TASK_CASES = [
    pytest.param({}, 422, "/text", id="no text"),
    pytest.param({"text": []}, 422, "/text", id="no texts"),
    pytest.param({"text": ["a", ""]}, 422, "/text/1", id="empty text"),
    pytest.param({"text": ["a", None]}, 422, "/text/1", id="null in list"),
    pytest.param({"text": ["a"] * 2049}, 422, "/text", id="too many texts"),
    pytest.param({"text": ["a", "b" * 200_001]}, 422, "/text/1", id="text too long"),
    pytest.param({"text": "a", "model": "unknown"}, 404, "/model", id="unknown model"),
    pytest.param({"text": "a", "dimensions": -1}, 422, "/dimensions", id="dimensions"),
    pytest.param({"text": "a", "options": []}, 422, "/options", id="options"),
    pytest.param({"text": "a", "options": {"n": -(10**30)}}, 422, "/options/n", id="huge integer"),
    pytest.param({"text": "a", "typo": 1}, 422, "/typo", id="unknown field"),
]

WARM_CASES = [
    pytest.param({}, 422, "/texts", id="no texts field"),
    pytest.param({"texts": []}, 422, "/texts", id="no texts"),
    pytest.param({"texts": "a"}, 422, "/texts", id="not a list"),
    pytest.param({"texts": ["a"], "models": ["all-minilm", "unknown"]}, 404, "/models/1", id="unknown model"),
]


@pytest.fixture(autouse=True)
def nothing_enqueued(api_redis: RedisServer) -> Any:
    yield
    assert [api_redis.store.llen(name) for name in LISTS] == [0, 0, 0, 0]
    assert not api_redis.store.exists("citadel:accepted")


@pytest.mark.parametrize(("body", "status", "param", "code"), OPENAI_CASES)
def test_invalid_embeddings_requests_are_400_in_openais_form(
    http: httpx.Client, body: dict[str, Any], status: int, param: str, code: str
) -> None:
    answer = http.post("/v1/embeddings", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == "invalid_request_error"
    assert param in error["message"]
    assert error["trace_id"] == answer.headers["x-request-id"]


def test_token_ids_are_explained(http: httpx.Client) -> None:
    error = http.post("/v1/embeddings", json={"input": [[101, 102]]}).json()["error"]
    assert "check_embedding_ctx_length=False" in error["message"]


@pytest.mark.parametrize(("body", "status", "pointer"), TASK_CASES)
def test_invalid_embedding_tasks_are_refused(
    http: httpx.Client, body: dict[str, Any], status: int, pointer: str
) -> None:
    _assert_problem(http.post("/v1/embeddings/tasks", json=body), status, pointer)


@pytest.mark.parametrize(("body", "status", "pointer"), WARM_CASES)
def test_invalid_warm_requests_are_refused(http: httpx.Client, body: dict[str, Any], status: int, pointer: str) -> None:
    _assert_problem(http.post("/v1/cache/warm", json=body), status, pointer)


def _assert_problem(answer: httpx.Response, status: int, pointer: str) -> None:
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"]) == (status, status)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert problem["trace_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/embeddings/tasks", "/v1/cache/warm"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"input": "\xff\xfe"}', b'{"input": "\\ud800"}', b"\x00", b"[" * 100_000],
    ids=["empty", "cut", "not UTF-8", "lone surrogate", "NUL", "deep"],
)
def test_a_body_that_is_not_json_is_400(http: httpx.Client, path: str, content: bytes) -> None:
    answer = http.post(path, content=content, headers={"content-type": "application/json"})
    body = answer.json()
    assert answer.status_code == 400
    assert (body.get("error") or body)["code"] == "malformed_body"


@pytest.mark.parametrize("content", [b"[]", b'"text"', b"null", b"7"])
def test_a_body_that_is_not_an_object_is_refused(http: httpx.Client, content: bytes) -> None:
    assert http.post("/v1/embeddings/tasks", content=content).status_code == 422


def test_several_bad_fields_are_all_named(http: httpx.Client) -> None:
    problem = http.post("/v1/embeddings/tasks", json={"text": 1, "model": 2, "typo": 3}).json()
    assert {error["pointer"] for error in problem["errors"]} == {"/text", "/model", "/typo"}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_other_content_types_are_415(http: httpx.Client, kind: str) -> None:
    answer = http.post("/v1/embeddings/tasks", content=b'{"text": "a"}', headers={"content-type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def test_an_unknown_route_is_404_and_a_wrong_method_405(http: httpx.Client) -> None:
    missing, wrong = http.get("/v1/nothing"), http.delete("/v1/queues")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (
        405,
        "method_not_allowed",
        "GET, HEAD, OPTIONS",
    )
    openai = http.get("/v1/embeddings")
    assert (openai.status_code, openai.json()["error"]["code"]) == (405, "method_not_allowed")


def test_the_callers_trace_is_kept(http: httpx.Client) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = http.get("/v1/nothing", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    assert answer.json()["trace_id"] == answer.headers["x-request-id"] == trace_id
    assert answer.headers["traceresponse"].split("-")[1] == trace_id


@pytest.mark.parametrize("value", ["", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "nonsense", "ff-" + "1" * 32])
def test_a_bad_traceparent_is_ignored(http: httpx.Client, value: str) -> None:
    trace_id = http.get("/livez", headers={"traceparent": value}).headers["x-request-id"]
    assert len(trace_id) == 32
    assert trace_id != "0" * 32
