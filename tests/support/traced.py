"""The whole server, traced: stores, doubles, both workers and the API, all of them sending spans to one receiver."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles.otlp.receiver import OtlpReceiver
from tests.doubles.process import LlmProcess, OllamaProcess, QdrantProcess
from tests.integration.api.servers import Api
from tests.support.child import free_port
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import CREDENTIALS, LLM_KEY, QDRANT_KEY
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess


@dataclass(kw_only=True)
class TracedServer:
    """Handles on its parts."""

    redis: RedisProcess
    dsn: str
    ollama: OllamaProcess
    qdrant: QdrantProcess
    llm: LlmProcess
    receiver: OtlpReceiver
    embeddings: WorkerProcess
    embeddings_metrics: int
    orchestration: OrchestrationProcess
    api: Api
    http: httpx.Client
    others: dict[str, Any]

    def store(self, *texts: str, collection: str = "docs") -> None:
        """Embed and store texts."""
        points = [{"id": number, "text": text} for number, text in enumerate(texts)]
        body = {"points": points, "model": "nomic-embed-text"}
        answer = self.http.post(f"/v1/collections/{collection}/points", json=body)
        assert answer.status_code == 200, answer.text

    def submit(self, definition: dict[str, Any], **headers: str) -> str:
        """The path of a run that was accepted."""
        answer = self.http.post("/v1/workflows", json=definition, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    def ended(self, path: str) -> dict[str, Any]:
        """The run, once it has ended."""
        return eventually(lambda: (run := self.http.get(path).json())["finished_at"] and run)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a server stands among: Redis, and doubles of what it asks."""

    redis: RedisProcess
    ollama: OllamaProcess
    qdrant: QdrantProcess
    llm: LlmProcess


@contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Start them."""
    with RedisProcess() as redis, OllamaProcess(slots=4) as ollama, QdrantProcess() as qdrant, LlmProcess() as llm:
        yield Surroundings(redis=redis, ollama=ollama, qdrant=qdrant, llm=llm)


@contextmanager
def traced_server(postgres: PostgresProcess, log: Path) -> Iterator[TracedServer]:
    """Start all of it."""
    with surroundings() as around, server_among(around, postgres, log) as server:
        yield server


@contextmanager
def server_among(
    around: Surroundings,
    postgres: PostgresProcess,
    log: Path,
    *,
    number: int = 0,
    endpoint: str = "",
    **environment: str,
) -> Iterator[TracedServer]:
    """Start the API and a worker of each kind.

    Args:
        around: Where they stand; several servers may.
        postgres: Where they have a database of their own.
        log: The API's.
        number: The Redis database, each server's own.
        endpoint: Where spans go; without one, to the receiver.
        environment: Further variables.
    """
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        receiver = stack.enter_context(OtlpReceiver())
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint or receiver.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        for name, value in environment.items():
            patch.setenv(name, value)
        url, dsn = around.redis.database(number), stack.enter_context(postgres.database())
        metrics = free_port()
        embeddings = stack.enter_context(WorkerProcess(url, around.ollama.url, TELEMETRY__METRICS_PORT=metrics))
        others = _settings_of(around)
        orchestration = stack.enter_context(OrchestrationProcess(url, dsn, others))
        shared = {"BROKER_URL": url, "POSTGRES_DSN": dsn, "API__WORKERS": "1"} | others
        api = Api({f"CITADEL_{name}": str(value) for name, value in shared.items()}, log)
        stack.callback(api.kill_all)
        http = stack.enter_context(httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS))
        yield TracedServer(
            redis=around.redis,
            dsn=dsn,
            ollama=around.ollama,
            qdrant=around.qdrant,
            llm=around.llm,
            receiver=receiver,
            embeddings=embeddings,
            embeddings_metrics=metrics,
            orchestration=orchestration,
            api=api,
            http=http,
            others=others,
        )


def _settings_of(around: Surroundings) -> dict[str, Any]:
    return {
        "LLM__ENDPOINTS__main__URL": around.llm.url,
        "LLM__ENDPOINTS__main__MODEL": "tiny-llm",
        "LLM__ENDPOINTS__main__STYLE": "ollama",
        "LLM__ENDPOINTS__main__API_KEY": LLM_KEY,
        "QDRANT__URL": around.qdrant.url,
        "QDRANT__API_KEY": QDRANT_KEY,
    }
