"""Servers that tests call: a double, or the real server that it stands for."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

import pytest

from tests.doubles.process import LlmProcess, OllamaProcess, QdrantProcess
from tests.support.planted import QDRANT_KEY
from tests.support.required import lacking

Style = Literal["ollama", "openai"]
EMBEDDING_MODEL = "all-minilm"
LLM_MODEL = "tiny-llm"


@dataclass(frozen=True, kw_only=True)
class Server:
    """One running server.

    Attributes:
        url: Base URL; `/v1` is part of it where the server speaks OpenAI's protocol.
        style: Protocol.
        model: Model that it serves; empty for a server without models.
        api_key: Key that it demands; None if it demands none.
        is_real: Whether it is the real server and not its double.
    """

    url: str
    style: Style | None = None
    model: str = ""
    api_key: str | None = None
    is_real: bool = False


Start = Callable[[], AbstractContextManager[Server]]


def address(variable: str) -> str:
    """Return the address of a real server; skip the test where none is named, fail in CI."""
    found = os.environ.get(variable)
    if not found:
        lacking(f"{variable} names no server")
    return found.rstrip("/")


def double_or_real(double: Start, real: Start, name: str = "") -> list[object]:
    """Return the parameters of a fixture: the double for `make test`, the real server for `make test-real`."""
    prefix = name and f"{name}-"
    return [
        pytest.param(double, id=f"{prefix}double"),
        pytest.param(real, id=f"{prefix}real", marks=pytest.mark.real),
    ]


@contextmanager
def ollama_double() -> Iterator[Server]:
    """Run a double of Ollama that has the embedding model."""
    with OllamaProcess(slots=4, models=(EMBEDDING_MODEL,)) as process:
        yield Server(url=process.url, style="ollama", model=EMBEDDING_MODEL)


@contextmanager
def ollama_real() -> Iterator[Server]:
    """Return the Ollama that CITADEL_REAL_OLLAMA names."""
    yield Server(url=address("CITADEL_REAL_OLLAMA"), style="ollama", model=EMBEDDING_MODEL, is_real=True)


@contextmanager
def openai_double() -> Iterator[Server]:
    """Run a double of a llama-server that embeds."""
    with OllamaProcess(slots=4, models=(EMBEDDING_MODEL,), manners="llama") as process:
        yield Server(url=f"{process.url}/v1", style="openai", model=EMBEDDING_MODEL)


@contextmanager
def openai_real() -> Iterator[Server]:
    """Return the embedding server (llama-server) that CITADEL_REAL_OPENAI names."""
    yield Server(url=address("CITADEL_REAL_OPENAI"), style="openai", model=EMBEDDING_MODEL, is_real=True)


@contextmanager
def llm_double() -> Iterator[Server]:
    """Run a double of a llama-server that answers."""
    with LlmProcess(models=(LLM_MODEL,), any_model="yes", context=1024) as process:
        yield Server(url=f"{process.url}/v1", style="openai", model=LLM_MODEL)


@contextmanager
def llm_real() -> Iterator[Server]:
    """Return the LLM server (llama-server) that CITADEL_REAL_LLM names."""
    yield Server(url=address("CITADEL_REAL_LLM"), style="openai", model=LLM_MODEL, is_real=True)


@contextmanager
def ollama_llm_double() -> Iterator[Server]:
    """Run a double of an Ollama with a model that chats."""
    with LlmProcess(models=(LLM_MODEL,), context=1024) as process:
        yield Server(url=process.url, style="ollama", model=LLM_MODEL)


@contextmanager
def ollama_llm_real() -> Iterator[Server]:
    """Return the Ollama that CITADEL_REAL_OLLAMA names, if CITADEL_REAL_OLLAMA_LLM names a model there that chats."""
    url, model = address("CITADEL_REAL_OLLAMA"), os.environ.get("CITADEL_REAL_OLLAMA_LLM")
    if not model:
        pytest.skip("CITADEL_REAL_OLLAMA_LLM names no model")
    yield Server(url=url, style="ollama", model=model, is_real=True)


@contextmanager
def qdrant_double() -> Iterator[Server]:
    """Run a double of Qdrant that demands a key."""
    with QdrantProcess(api_key=QDRANT_KEY) as process:
        yield Server(url=process.url, api_key=QDRANT_KEY)


@contextmanager
def qdrant_real() -> Iterator[Server]:
    """Return the Qdrant that CITADEL_REAL_QDRANT names; its key is CITADEL_REAL_QDRANT_API_KEY."""
    key = os.environ.get("CITADEL_REAL_QDRANT_API_KEY") or None
    yield Server(url=address("CITADEL_REAL_QDRANT"), api_key=key, is_real=True)
