"""What runs need, as real processes: the API, both workers, Redis, PostgreSQL; doubles of Ollama and Qdrant."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.doubles.process import OllamaProcess, QdrantProcess
from tests.integration.api.servers import Api, RedisServer
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import CREDENTIALS, QDRANT_KEY
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess
from tests.support.worker import WorkerProcess

MODEL = "nomic-embed-text"
FINISHED = ("succeeded", "failed", "cancelled", "timed_out")
WAIT = {"step_id": "wait", "type": "wait", "parameters": {"signal": "go"}}
"""A step that ends when a test sends the signal."""
BATCHES = "/v1/embeddings/batches"
NDJSON = {"content-type": "application/x-ndjson"}


@dataclass(kw_only=True)
class Stack:
    """The servers and processes of a stack."""

    redis: RedisServer
    postgres: PostgresProcess
    dsn: str
    double: OllamaProcess
    qdrant: QdrantProcess
    log: Path
    api: Api = field(init=False)
    http: httpx.Client = field(init=False)
    embeddings: WorkerProcess = field(init=False)
    engine: OrchestrationProcess = field(init=False)
    _processes: contextlib.ExitStack = field(init=False, default_factory=contextlib.ExitStack)

    def start_embeddings(self) -> None:
        """Start the embeddings worker."""
        self.embeddings = self._processes.enter_context(WorkerProcess(self.redis.url, self.double.url))

    def start_engine(self) -> None:
        """Start the orchestration worker."""
        qdrant = {"QDRANT__URL": self.qdrant.url, "QDRANT__API_KEY": QDRANT_KEY}
        self.engine = self._processes.enter_context(OrchestrationProcess(self.redis.url, self.dsn, qdrant))

    def start_api(self, **settings: Any) -> None:
        """Start the API on a new port; keywords are settings without the prefix."""
        if hasattr(self, "http"):
            self.http.close()
        self.api = self.another_api(self.log, **settings)
        self.http = httpx.Client(base_url=self.api.url, timeout=60, headers=CREDENTIALS)

    def another_api(self, log: Path, **settings: Any) -> Api:
        """Start another API on the same stores."""
        environment = {f"CITADEL_{name}": str(value) for name, value in settings.items()}
        stores = {
            "CITADEL_BROKER_URL": self.redis.url,
            "CITADEL_POSTGRES_DSN": self.dsn,
            "CITADEL_QDRANT__URL": self.qdrant.url,
        }
        return Api(stores | {"CITADEL_API__WORKERS": "1"} | environment, log)

    def submit(self, *steps: dict[str, Any], **fields: Any) -> str:
        """Submit a workflow and return the path of its run."""
        answer = self.http.post("/v1/workflows", json={"steps": list(steps)} | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def submit_batch(self, requests: list[dict[str, Any]], **query: Any) -> str:
        """Submit a batch as NDJSON and return the path of its run."""
        lines = b"".join(json.dumps(request).encode() + b"\n" for request in requests)
        answer = self.http.post(BATCHES, params=query, content=lines, headers=NDJSON)
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def show(self, path: str) -> Any:
        """Return the run."""
        return self.http.get(path).raise_for_status().json()

    def until(self, path: str, wanted: Callable[[Any], object]) -> Any:
        """Return the run once `wanted` holds; ignores 503s, which may follow an outage of a store."""

        def view() -> Any:
            answer = self.http.get(path)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer.raise_for_status().json()

        return eventually(lambda: (found := view()) and wanted(found) and found)

    def ended(self, path: str) -> Any:
        """Return the run once it has ended."""
        return self.until(path, lambda view: view["status"] in FINISHED)

    def waiting(self, path: str, step_id: str = "wait") -> Any:
        """Return the run once that step waits."""
        return self.until(path, lambda view: step_of(view, step_id)["status"] == "waiting")

    def results(self, path: str, **query: Any) -> list[Any]:
        """Return all results of a batch once it has ended."""
        answer = self.http.get(f"{path}/results", params=query).raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines()]

    def history(self, path: str) -> list[Any]:
        """Return the run's events so far."""
        answer = self.http.get(f"{path}/events", headers={"accept": "application/json"}).raise_for_status()
        return list(answer.json())

    def close(self) -> None:
        """End all processes that the stack started."""
        if hasattr(self, "http"):
            self.http.close()
        self._processes.close()
        if hasattr(self, "api"):
            self.api.kill_all()


def step_of(view: Any, step_id: str) -> Any:
    """Return one step of a run."""
    return next(step for step in view["steps"] if step["step_id"] == step_id)


def embedding(step_id: str, text: str, **fields: Any) -> dict[str, Any]:
    """Return a step that embeds a text."""
    return {"step_id": step_id, "type": "embedding", "parameters": {"text": text, "model": MODEL}} | fields


@contextlib.contextmanager
def open_stack(postgres: PostgresProcess, log: Path, *, key: str = "", **settings: Any) -> Iterator[Stack]:
    """Open a stack on a new database; keywords are the key to the API and its settings without the prefix."""
    with (
        RedisServer() as redis,
        postgres.database() as dsn,
        OllamaProcess(slots=4) as double,
        QdrantProcess() as qdrant,
    ):
        stack = Stack(redis=redis, postgres=postgres, dsn=dsn, double=double, qdrant=qdrant, log=log)
        try:
            stack.start_embeddings()
            stack.start_engine()
            stack.start_api(**settings)
            if key:
                stack.http.headers["authorization"] = f"Bearer {key}"
            eventually(lambda: stack.http.get("/v1/models").json()["data"])
            yield stack
        finally:
            stack.close()
