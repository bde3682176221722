"""Spellings of paths and methods: slashes, `/v1`, base paths, HEAD, OPTIONS, browsers of other origins."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import ClassVar

import httpx
import pytest

from citadel_client import Citadel
from tests.integration.api.conftest import StartApi
from tests.integration.api.fake_worker import cache_vectors
from tests.integration.api.servers import Api, RedisServer
from tests.support.planted import CREDENTIALS

ORIGIN = "https://app.example"
ERRORS = ["/v1/models/none", "/v1/models/a/b", "/v1/embeddings/nothing", "/v1/embeddings/a/b", "/models/none"]
PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
RUN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def based(start_api: StartApi, models: None) -> Api:
    """A server behind a proxy that passes `/citadel` on, and which a page of another origin may call."""
    return start_api(base_path="/citadel", cors_origins=f'["{ORIGIN}"]')


@pytest.fixture(scope="module")
def behind(based: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{based.url}/citadel", timeout=60, headers=CREDENTIALS) as client:
        yield client


@pytest.fixture(autouse=True)
def cached(api_redis: RedisServer, models: None) -> None:
    cache_vectors(api_redis.url, ["hello"])


def embed(http: httpx.Client, path: str) -> httpx.Response:
    return http.post(path, json={"input": "hello"})


def get_routes(http: httpx.Client) -> list[str]:
    """All GET routes, with a value for each path parameter."""
    documented = http.get("/openapi.json").json()["paths"]
    paths = [path for path, methods in documented.items() if "get" in methods]
    values = {"run_id": RUN, "kind": "health", "model": "all-minilm"}
    return ["/docs", "/openapi.json", *(PARAMETER.sub(lambda it: values.get(it[1], it[1]), path) for path in paths)]


@pytest.mark.parametrize(
    "path", ["/v1/embeddings/", "/v1/embeddings//", "//v1/embeddings", "/v1//embeddings", "/embeddings", "/embeddings/"]
)
def test_other_spellings_of_a_path_are_served_in_place(http: httpx.Client, path: str) -> None:
    answer = embed(http, f"{http.base_url}{path}")
    assert (answer.status_code, answer.json().get("object")) == (200, "list"), answer.text


def test_every_get_route_has_a_trailing_slash_and_head(http: httpx.Client) -> None:
    routes = get_routes(http)
    assert len(routes) > 15
    for path in routes:
        got = http.get(path)
        with_slash, head = http.get(f"{path}/"), http.head(path)
        assert with_slash.status_code == got.status_code, path
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path


def test_head_of_a_post_route_is_405_with_the_methods(http: httpx.Client) -> None:
    answer = http.head("/v1/embeddings")
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")


def test_a_path_with_several_methods_names_them_all(http: httpx.Client) -> None:
    assert http.put("/v1/dead-letters").headers["allow"] == "DELETE, GET, HEAD, OPTIONS"
    assert http.options("/v1/dead-letters").headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


@pytest.mark.parametrize("path", ERRORS)
def test_unknown_paths_below_openais_are_404_in_its_form(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    error = answer.json()["error"]
    assert answer.status_code == 404
    assert (error["type"], error["trace_id"]) == ("invalid_request_error", answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/v1/embeddings/tasks", "/v1/embeddings/batches"])
def test_citadels_own_routes_there_answer_in_both_forms(http: httpx.Client, path: str) -> None:
    body = http.post(path, content=b"{", headers={"content-type": "application/json"}).json()
    assert (body["code"], body["error"]["code"]) == ("malformed_body", "malformed_body")
    assert body["detail"] == body["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/v1/models/all-minilm"), ("PUT", "/v1/embeddings")])
def test_a_wrong_method_is_405_in_openais_form(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


class TestBasePath:
    @pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/v1/embeddings/", "/v1//embeddings"])
    def test_routes_are_below_it_with_and_without_v1(self, behind: httpx.Client, path: str) -> None:
        assert embed(behind, path).status_code == 200

    def test_a_proxy_may_strip_it(self, based: Api, behind: httpx.Client) -> None:
        with httpx.Client(base_url=based.url, headers=CREDENTIALS) as stripped:
            assert embed(stripped, "/v1/embeddings").status_code == 200
            assert stripped.get("/livez").status_code == 200
            task = stripped.post("/v1/embeddings/tasks", json={"text": "hello"})
        assert task.headers["location"] == f"/citadel/v1/tasks/{task.json()['task_id']}"
        assert behind.get(f"/v1/tasks/{task.json()['task_id']}").status_code == 200

    def test_probes_and_documents_are_below_it(self, behind: httpx.Client) -> None:
        assert behind.get("/openapi.json").json()["servers"] == [{"url": "/citadel"}]
        for path in ("/livez", "/readyz", "/docs", "/v1/models/all-minilm", "/models"):
            assert behind.get(path).status_code == 200, path

    def test_another_path_that_begins_like_it_is_not_found(self, based: Api) -> None:
        answer = httpx.get(f"{based.url}/citadels/livez", headers=CREDENTIALS, trust_env=False)
        assert answer.status_code == 404

    def test_the_sdk_works_below_it(self, based: Api) -> None:
        with Citadel(f"{based.url}/citadel/") as citadel:
            assert len(citadel.embed(["hello"]).vectors) == 1
            assert citadel.submit("hello").status().status == "queued"

    def test_the_command_works_below_it(self, based: Api) -> None:
        for arguments in (("embed", "hello", "--json"), ("health", "--json"), ("queues", "--json")):
            command = [sys.executable, "-m", "citadel_client", *arguments]
            environment = os.environ | {"CITADEL_API_URL": f"{based.url}/citadel"}
            done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
            assert done.stdout.startswith((b"{", b"[")), (arguments, done.stderr)


class TestBrowsers:
    ASKED: ClassVar = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }

    def test_a_listed_origin_may_call(self, behind: httpx.Client) -> None:
        preflight = behind.options("/v1/embeddings", headers={"origin": ORIGIN} | self.ASKED)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ORIGIN
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert "POST" in preflight.headers["access-control-allow-methods"]
        for text, status in (("hello", 200), ("", 400)):
            answer = behind.post("/v1/embeddings", json={"input": text}, headers={"origin": ORIGIN})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
            exposed = answer.headers["access-control-expose-headers"].lower()
            assert all(name in exposed for name in ("x-request-id", "retry-after", "citadel-ignored-fields"))

    def test_another_origin_may_not(self, behind: httpx.Client) -> None:
        preflight = behind.options("/v1/embeddings", headers={"origin": "https://evil.example"} | self.ASKED)
        assert "access-control-allow-origin" not in preflight.headers
        answer = behind.get("/v1/models", headers={"origin": "https://evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")

    def test_without_the_setting_no_origin_may(self, http: httpx.Client) -> None:
        answer = http.options("/v1/embeddings", headers={"origin": "http://localhost:3000"} | self.ASKED)
        assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
        assert not [name for name in answer.headers if name.startswith("access-control")]
