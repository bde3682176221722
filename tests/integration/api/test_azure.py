"""Clients of Azure OpenAI: their paths, which name the model as a deployment, and their header for the key."""

import hashlib
import json
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.api.conftest import StartApi
from tests.integration.api.fake_worker import cache_vectors
from tests.integration.api.servers import RedisServer
from tests.support.planted import BEARER

DEPLOYMENTS = "/openai/deployments"
KEY = {"api-key": BEARER}


@pytest.fixture(scope="module")
def azure(start_api: StartApi, api_redis: RedisServer, models: None) -> Iterator[httpx.Client]:
    cache_vectors(api_redis.url, ["hello"])
    key = {"name": "all", "hash": hashlib.sha256(BEARER.encode()).hexdigest(), "scopes": ["read", "submit"]}
    api = start_api(keys=json.dumps([key]))
    with httpx.Client(base_url=api.url, timeout=60, params={"api-version": "2024-10-21"}) as client:
        yield client


@pytest.mark.parametrize("body", [{}, {"model": "text-embedding-ada-002"}, {"model": None}])
def test_the_deployment_is_the_model(azure: httpx.Client, body: dict[str, str]) -> None:
    answer = azure.post(f"{DEPLOYMENTS}/nomic-embed-text/embeddings", json={"input": "hello"} | body, headers=KEY)
    assert (answer.status_code, answer.json().get("model")) == (200, "nomic-embed-text"), answer.text


@pytest.mark.parametrize("path", ["/openai/v1/embeddings", "/openai/embeddings", "/openai/v1/embeddings/"])
def test_without_a_deployment_the_body_names_the_model(azure: httpx.Client, path: str) -> None:
    answer = azure.post(path, json={"input": "hello", "model": "nomic-embed-text"}, headers=KEY)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("deployment", ["unknown", "library%2Funknown:latest", "a/b"])
def test_an_unknown_deployment_is_an_unknown_model(azure: httpx.Client, deployment: str) -> None:
    answer = azure.post(f"{DEPLOYMENTS}/{deployment}/embeddings", json={"input": "hello"}, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_models_are_listed_and_shown(azure: httpx.Client) -> None:
    for path in ("/openai/models", "/openai/v1/models"):
        (model, *_) = azure.get(path, headers=KEY).raise_for_status().json()["data"]
        assert azure.get(f"{path}/{model['id']}", headers=KEY).json() == model


@pytest.mark.parametrize(
    "headers",
    [{}, {"api-key": "wrong"}, {"api-key": ""}, {"authorization": "Bearer wrong"} | KEY, {"x-api-key": BEARER}],
)
def test_without_a_known_key_it_is_401(azure: httpx.Client, headers: dict[str, str]) -> None:
    answer = azure.post(f"{DEPLOYMENTS}/nomic-embed-text/embeddings", json={"input": "hello"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


@pytest.mark.parametrize("authorization", ["Basic dXNlcjpwdw==", "Bearer"])
def test_the_header_counts_beside_an_authorization_that_holds_no_token(azure: httpx.Client, authorization: str) -> None:
    """Proxies add their own."""
    headers = KEY | {"authorization": authorization}
    assert azure.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/openai", "/openai/", "/openai/deployments", f"{DEPLOYMENTS}/x/chat/completions"])
def test_other_paths_of_azure_are_not_found(azure: httpx.Client, path: str) -> None:
    assert azure.post(path, json={"input": "hello"}, headers=KEY).status_code == 404
