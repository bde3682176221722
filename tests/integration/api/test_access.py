"""API keys, scopes, rate limits, body limits, overload."""

import hashlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.api.conftest import StartApi
from tests.integration.api.servers import Api, Program, RedisServer
from tests.support.web import web

READER, WRITER = "reader-key", "writer-key"


def _key(name: str, secret: str, *scopes: str) -> dict[str, object]:
    return {"name": name, "hash": hashlib.sha256(secret.encode()).hexdigest(), "scopes": scopes}


@pytest.fixture(scope="module")
def guarded(start_api: StartApi, models: None) -> Api:
    """An API with keys, on all interfaces, with small limits."""
    keys = [_key("reader", READER, "read"), _key("writer", WRITER, "submit")]
    return start_api(host="0.0.0.0", keys=json.dumps(keys), max_body_bytes=2000)


@pytest.fixture(scope="module")
def client(guarded: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded.url, timeout=60) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), *({"authorization": value} for value in ("Bearer", READER, f"Basic {READER}"))],
)
@pytest.mark.parametrize("path", ["/v1/queues", "/v1/nothing", "/v1/tasks/x"])
def test_requests_without_a_known_key_are_401(client: httpx.Client, path: str, headers: dict[str, str]) -> None:
    answer = client.get(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_401_and_403_have_openais_form_on_its_routes(client: httpx.Client) -> None:
    nobody = client.post("/v1/embeddings", json={"input": "a"})
    reader = client.post("/v1/embeddings", json={"input": "a"}, headers=bearer(READER))
    assert (nobody.status_code, nobody.json()["error"]["type"]) == (401, "authentication_error")
    assert (reader.status_code, reader.json()["error"]["type"]) == (403, "permission_error")


def test_a_key_needs_the_scope_of_the_route(client: httpx.Client) -> None:
    assert client.get("/v1/queues", headers=bearer(READER)).status_code == 200
    assert client.get("/v1/queues", headers=bearer(WRITER)).status_code == 403
    body = {"text": "a"}
    assert client.post("/v1/embeddings/tasks", json=body, headers=bearer(READER)).status_code == 403
    assert client.post("/v1/embeddings/tasks", json=body, headers=bearer(WRITER)).status_code == 202


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_docs_need_no_key(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200


def test_a_body_declared_too_long_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings", json={"input": "a" * 3_000_000}, headers=bearer(WRITER))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_streamed_body_over_the_limit_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/embeddings/tasks", content=iter([b" " * 1000] * 50), headers=bearer(WRITER))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_an_endless_body_is_refused_before_its_end(guarded: Api) -> None:
    """The response comes although the body never ends."""
    head = f"POST /v1/embeddings/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {WRITER}\r\n"
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b" " * 4096 + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_each_caller_has_a_rate_limit(start_api: StartApi) -> None:
    api = start_api(rate_per_minute=5)
    answers = [web.get(f"{api.url}/v1/tasks/x") for _ in range(12)]
    limited = [answer for answer in answers if answer.status_code == 429]
    assert len(limited) == 7
    assert limited[0].json()["code"] == "rate_limited"
    # the minute before counts by a share: the first of five is free a fifth of a minute after this minute's end
    assert 1 <= int(limited[0].headers["retry-after"]) <= 72
    assert web.get(f"{api.url}/livez").status_code == 200


@pytest.mark.parametrize(
    "headers", [{"host": "attacker.example"}, {"origin": "https://attacker.example"}, {"origin": "null"}]
)
def test_without_keys_pages_of_others_are_refused(http: httpx.Client, headers: dict[str, str]) -> None:
    answer = http.get("/v1/queues", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert "CITADEL_API__KEYS" in answer.json()["detail"]


@pytest.mark.parametrize(
    "header",
    [
        *("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server"),
        *("X-Real-IP", "CF-Connecting-IP", "CF-Ray", "True-Client-IP", "X-Client-IP", "X-Original-Host", "CDN-Loop"),
    ],
)
def test_without_keys_requests_that_a_proxy_has_passed_on_are_refused(http: httpx.Client, header: str) -> None:
    """Even those that seem to come from this machine: a proxy on it may have rewritten `Host` and address."""
    answer = http.get("/v1/queues", headers={header: "127.0.0.1", "host": "localhost"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert header.lower() in answer.json()["detail"]
    assert http.get("/livez", headers={header: "127.0.0.1"}).status_code == 200


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080"])
def test_without_keys_this_machine_is_served(http: httpx.Client, host: str) -> None:
    assert http.get("/v1/queues", headers={"host": host}).status_code == 200


def test_a_full_backlog_refuses_requests(start_api: StartApi, api_redis: RedisServer, models: None) -> None:
    """Requests are refused before they are enqueued, with a hint when to retry."""
    api = start_api(max_backlog=3)
    api_redis.store.rpush("embeddings\x06\x166", *["{}"] * 3)
    try:
        for path, body in (("/v1/embeddings", {"input": "new"}), ("/v1/embeddings/tasks", {"text": "new"})):
            answer = web.post(f"{api.url}{path}", json=body)
            problem = answer.json()
            assert (answer.status_code, (problem.get("error") or problem)["code"]) == (503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
        assert api_redis.store.llen("embeddings") == 0
    finally:
        api_redis.store.delete("embeddings\x06\x166")


def test_too_many_waiting_requests_are_refused(
    start_api: StartApi, api_redis: RedisServer, models: None, worker: Program
) -> None:
    api = start_api(max_waiting=1)
    api_redis.store.delete("started")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(httpx.post, f"{api.url}/v1/embeddings", json={"input": "wait on turn"}, timeout=60)
        api_redis.store.blpop("started", timeout=60)
        second = web.post(f"{api.url}/v1/embeddings", json={"input": "impatient"}, timeout=60)
        api_redis.store.lpush("turn", 1)
        assert (second.status_code, second.json()["error"]["code"]) == (503, "overloaded")
        assert "retry-after" in second.headers
        assert first.result().status_code == 200


def test_openapi_names_every_route(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert set(document["paths"]) >= {
        "/v1/embeddings",
        "/v1/embeddings/tasks",
        "/v1/tasks/{task_id}",
        "/v1/cache/warm",
        "/v1/cache",
        "/v1/queues",
        "/v1/workers",
        "/v1/health",
        "/v1/models",
        "/livez",
        "/readyz",
    }
    body = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "input" in body["properties"]
    assert "http" not in http.get("/docs").text.replace("http-equiv", "")
