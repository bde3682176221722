"""Tests that a double and the real server that it stands for both pass.

A test asks for `embedding_server`, `ollama_server`, `openai_server`, `llm_server` or `qdrant_server` and runs once for
each: with the double in `make test`, with the real server in `make test-real`. Tests of faults on demand are elsewhere.
"""

import pytest

from tests.support import servers
from tests.support.servers import double_or_real

OLLAMA = double_or_real(servers.ollama_double, servers.ollama_real, "ollama")
OPENAI = double_or_real(servers.openai_double, servers.openai_real, "openai")


@pytest.fixture(scope="module", params=[*OLLAMA, *OPENAI])
def embedding_server(request):
    """An embedding server of either protocol."""
    with request.param() as server:
        yield server


@pytest.fixture(scope="module", params=OLLAMA)
def ollama_server(request):
    """Ollama."""
    with request.param() as server:
        yield server


@pytest.fixture(scope="module", params=OPENAI)
def openai_server(request):
    """An embedding server with OpenAI's protocol: llama-server."""
    with request.param() as server:
        yield server


@pytest.fixture(scope="module", params=double_or_real(servers.llm_double, servers.llm_real))
def llm_server(request):
    """An LLM server with OpenAI's protocol: llama-server."""
    with request.param() as server:
        yield server


@pytest.fixture(
    scope="module",
    params=[
        *double_or_real(servers.llm_double, servers.llm_real, "openai"),
        *double_or_real(servers.ollama_llm_double, servers.ollama_llm_real, "ollama"),
    ],
)
def chat_server(request):
    """An LLM server of either protocol: llama-server, or Ollama with a model that chats."""
    with request.param() as server:
        yield server


@pytest.fixture(scope="module", params=double_or_real(servers.qdrant_double, servers.qdrant_real))
def qdrant_server(request):
    """Qdrant with an API key. Several tests share the real one: use collections of your own and delete them."""
    with request.param() as server:
        yield server
