"""Fixtures of the LLM endpoints' tests."""

import pytest

from tests.doubles.process import LlmProcess


@pytest.fixture(scope="module")
def llm_process():
    """A running double of two models."""
    with LlmProcess(models="tiny-llm,other") as process:
        yield process


@pytest.fixture
def server(llm_process):
    """The double, healthy and with nothing counted."""
    llm_process.reset()
    return llm_process


@pytest.fixture(params=["openai", "openai-whole", "ollama", "ollama-whole"])
def way(request):
    """Each protocol, streamed and not, as settings of an endpoint."""
    style, _, whole = request.param.partition("-")
    return {"style": style, "stream": not whole}


@pytest.fixture(params=["openai", "ollama"])
def streamed(request):
    """Each protocol, streamed."""
    return {"style": request.param, "stream": True}
