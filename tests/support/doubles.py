"""Doubles of all servers that Citadel calls, as processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.doubles.process import LlmProcess, OllamaProcess, QdrantProcess
from tests.support.planted import LLM_KEY, QDRANT_KEY

ENDPOINT = "LLM__ENDPOINTS__main__"


@dataclass(frozen=True, kw_only=True)
class Doubles:
    """One double of each kind."""

    ollama: OllamaProcess
    llm: LlmProcess
    qdrant: QdrantProcess

    def reset(self) -> None:
        """Make all of them healthy, with nothing counted and no collection."""
        for double in (self.ollama, self.llm, self.qdrant):
            double.reset()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of processes that call the LLM and Qdrant, names without the prefix."""
        return {
            f"{ENDPOINT}URL": self.llm.url,
            f"{ENDPOINT}STYLE": "ollama",
            f"{ENDPOINT}MODEL": "tiny-llm",
            f"{ENDPOINT}API_KEY": LLM_KEY,
            f"{ENDPOINT}MAX_CONCURRENCY": 200,
            "QDRANT__URL": self.qdrant.url,
            "QDRANT__API_KEY": QDRANT_KEY,
        }


@contextmanager
def doubles_with(ollama: OllamaProcess) -> Iterator[Doubles]:
    """Start the other doubles beside Ollama's."""
    with LlmProcess() as llm, QdrantProcess() as qdrant:
        yield Doubles(ollama=ollama, llm=llm, qdrant=qdrant)
