"""Embedding backends behind gateways: paths of their own."""

import asyncio

import pytest

from citadel_common.settings.embeddings import BackendSettings
from citadel_embeddings.backends.base import EmbedCall
from citadel_embeddings.backends.ollama import OllamaBackend
from citadel_embeddings.backends.openai import OpenAIBackend
from tests.doubles.process import OllamaProcess
from tests.support.gateway import gateway

MODEL = "all-minilm"
BACKENDS = {"openai": OpenAIBackend, "ollama": OllamaBackend}
PLACES = [
    ("openai", "/v1beta/openai", "", "/embeddings", "/models"),
    ("openai", "/openai/deployments/x", "?api-version=2", "/embeddings", "/models"),
    ("ollama", "/team/ollama", "", "/api/embed", "/api/tags"),
]


@pytest.fixture(scope="module")
def server():
    """An embedding server."""
    with OllamaProcess(models=(MODEL,)) as process:
        yield process


def use(kind, url, **settings):
    """The vectors of a text, and the models that are listed."""

    async def run():
        parsed = BackendSettings(kind=kind, urls=[url], **settings)
        backend = BACKENDS[kind](parsed)
        try:
            reply = await backend.embed(parsed.urls[0], EmbedCall(model=MODEL, texts=["a"]), timeout=10)
            return reply.rows, await backend.models(parsed.urls[0], timeout=10)
        finally:
            await backend.aclose()

    return asyncio.run(run())


@pytest.mark.parametrize(("kind", "mount", "query", "embed", "models"), PLACES)
def test_a_base_url_with_a_path_of_its_own_is_taken_as_given(server, kind, mount, query, embed, models):
    with gateway(server.url + "/v1" * (kind == "openai"), mount=mount) as (url, calls):
        for given in (f"{url}/{query}", f"{url}{embed}{query}"):
            rows, listed = use(kind, given)
            assert len(rows) == 1
            assert listed[0].name.startswith(MODEL)
    assert calls.calls == [f"POST {mount}{embed}{query}", f"GET {mount}{models}{query}"] * 2
