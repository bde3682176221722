"""The whole server: Redis, the API, a worker and a backend's double, each a process of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.doubles.process import OllamaProcess
from tests.integration.api.servers import Api
from tests.support.planted import CREDENTIALS
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess
from tests.support.worker import WorkerProcess


@dataclass(frozen=True, kw_only=True)
class Server:
    """The parts of the server."""

    redis: RedisProcess
    double: OllamaProcess
    api: Api
    http: httpx.Client

    def submit(self, text: str | list[str], **fields: object) -> str:
        """Submit a task; return its id."""
        answer = self.http.post("/v1/embeddings/tasks", json={"text": text} | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def finished(self, task_id: str) -> dict[str, object] | None:
        """Return the status of a task if it has ended, else None."""
        status = self.http.get(f"/v1/tasks/{task_id}").json()
        return status if status["status"] in ("succeeded", "failed") else None


@pytest.fixture(scope="module")
def server(
    redis_server: RedisProcess,
    postgres_server: PostgresProcess,
    ollama: OllamaProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Start the server without workers."""
    redis_server.flush()
    ollama.reset()
    stores = {"CITADEL_BROKER_URL": redis_server.url, "CITADEL_API__WORKERS": "1"}
    with postgres_server.database() as dsn:
        api = Api(stores | {"CITADEL_POSTGRES_DSN": dsn}, tmp_path_factory.mktemp("api") / "log")
        with httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as http:
            yield Server(redis=redis_server, double=ollama, api=api, http=http)
        api.terminate()


@pytest.fixture(scope="module")
def ready(server: Server) -> Iterator[Server]:
    """Start the server with one worker, and wait until it embeds."""
    with WorkerProcess(server.redis.url, server.double.url):
        eventually(lambda: _embeds(server.http.get("/v1/health").json()["components"]))
        yield server


def _embeds(components: dict[str, dict[str, object]]) -> bool:
    return all(components[name]["status"] == "up" for name in ("embedding_workers", "embedding_models"))
