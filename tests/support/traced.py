"""The whole server, traced: stores, doubles, both workers and the API, which send their spans to one receiver."""

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
from tests.support.doubles import ENDPOINT, Doubles, doubles_with
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import CREDENTIALS
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess

SLOTS = 8
"""Calls that the LLM endpoint takes at once."""


@dataclass(kw_only=True)
class TracedServer:
    """The parts of the server."""

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
        """Submit a definition; return the path of its run."""
        answer = self.http.post("/v1/workflows", json=definition, headers=headers)
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    def ended(self, path: str) -> dict[str, Any]:
        """Wait until a run has ended; return it."""
        return eventually(lambda: (run := self.http.get(path).json())["finished_at"] and run)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Redis and the doubles; several servers may share them."""

    redis: RedisProcess
    doubles: Doubles


@contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Start Redis and the doubles."""
    with RedisProcess() as redis, OllamaProcess(slots=4) as ollama, doubles_with(ollama) as doubles:
        yield Surroundings(redis=redis, doubles=doubles)


@contextmanager
def traced_server(postgres: PostgresProcess, log: Path) -> Iterator[TracedServer]:
    """Start the server and its surroundings."""
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
        around: Redis and the doubles.
        postgres: The server in which they get a database of their own.
        log: Log of the API.
        number: Number of the Redis database.
        endpoint: Endpoint for spans; without one, that of the receiver.
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
        embeddings = stack.enter_context(WorkerProcess(url, around.doubles.ollama.url, TELEMETRY__METRICS_PORT=metrics))
        others = around.doubles.settings | {f"{ENDPOINT}MAX_CONCURRENCY": SLOTS}
        orchestration = stack.enter_context(OrchestrationProcess(url, dsn, others))
        shared = {"BROKER_URL": url, "POSTGRES_DSN": dsn, "API__WORKERS": "1"} | others
        api = Api({f"CITADEL_{name}": str(value) for name, value in shared.items()}, log)
        stack.callback(api.kill_all)
        http = stack.enter_context(httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS))
        yield TracedServer(
            redis=around.redis,
            dsn=dsn,
            ollama=around.doubles.ollama,
            qdrant=around.doubles.qdrant,
            llm=around.doubles.llm,
            receiver=receiver,
            embeddings=embeddings,
            embeddings_metrics=metrics,
            orchestration=orchestration,
            api=api,
            http=http,
            others=others,
        )
