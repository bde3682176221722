"""The whole server, traced: stores, doubles, both workers and the API, all of them sending spans to one receiver."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doubles.llm_process import LlmProcess
from tests.doubles.otlp import OtlpReceiver
from tests.doubles.process import OllamaProcess
from tests.doubles.qdrant_process import QdrantProcess
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


@contextmanager
def traced_server(
    postgres: PostgresProcess, log: Path, *, endpoint: str = "", **environment: str
) -> Iterator[TracedServer]:
    """Start all of it; with an `endpoint`, spans go there and not to the receiver."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        receiver = stack.enter_context(OtlpReceiver())
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint or receiver.endpoint)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        for name, value in environment.items():
            patch.setenv(name, value)
        redis = stack.enter_context(RedisProcess())
        dsn = stack.enter_context(postgres.database())
        ollama = stack.enter_context(OllamaProcess(slots=4))
        qdrant, llm = stack.enter_context(QdrantProcess()), stack.enter_context(LlmProcess())
        metrics = free_port()
        embeddings = stack.enter_context(WorkerProcess(redis.url, ollama.url, TELEMETRY__METRICS_PORT=metrics))
        others = {
            "LLM__ENDPOINTS__main__URL": llm.url,
            "LLM__ENDPOINTS__main__MODEL": "tiny-llm",
            "LLM__ENDPOINTS__main__STYLE": "ollama",
            "LLM__ENDPOINTS__main__API_KEY": LLM_KEY,
            "QDRANT__URL": qdrant.url,
            "QDRANT__API_KEY": QDRANT_KEY,
        }
        orchestration = stack.enter_context(OrchestrationProcess(redis.url, dsn, others))
        shared = {"BROKER_URL": redis.url, "POSTGRES_DSN": dsn, "API__WORKERS": "1"} | others
        api = Api({f"CITADEL_{name}": str(value) for name, value in shared.items()}, log)
        stack.callback(api.kill_all)
        http = stack.enter_context(httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS))
        yield TracedServer(
            redis=redis,
            dsn=dsn,
            ollama=ollama,
            qdrant=qdrant,
            llm=llm,
            receiver=receiver,
            embeddings=embeddings,
            embeddings_metrics=metrics,
            orchestration=orchestration,
            api=api,
            http=http,
            others=others,
        )
