"""Models that each server lists."""

import httpx


def test_ollama_lists_its_model_with_a_digest(ollama_server):
    models = httpx.get(f"{ollama_server.url}/api/tags").json()["models"]
    [model] = [each for each in models if each["name"] == f"{ollama_server.model}:latest"]
    assert len(model["digest"]) == 64


def test_an_openai_style_server_lists_its_model(openai_server):
    listed = httpx.get(f"{openai_server.url}/models").json()["data"]
    assert openai_server.model in [model["id"].removesuffix(":latest") for model in listed]


def test_an_llm_server_lists_its_model(llm_server):
    listed = httpx.get(f"{llm_server.url}/models").json()["data"]
    assert llm_server.model in [model["id"] for model in listed]


def test_qdrant_asks_for_its_key(qdrant_server):
    url = f"{qdrant_server.url}/collections"
    assert httpx.get(url, headers={"api-key": qdrant_server.api_key}).json()["status"] == "ok"
    refused = httpx.get(url, headers={"api-key": "wrong"})
    assert (refused.status_code, refused.text) == (401, "Invalid API key or JWT")
