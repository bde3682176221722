"""The whole server under fuzzing: the API in two processes, all four workers, stores, and doubles of what they call."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from tests.doubles.process import OllamaProcess
from tests.integration.api.servers import Api
from tests.support.doubles import Doubles, doubles_with
from tests.support.maintenance import MaintenanceProcess
from tests.support.orchestration import OrchestrationProcess
from tests.support.planted import BEARER
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_server import RedisProcess
from tests.support.worker import ServiceProcess, WorkerProcess, backend_settings

KEY = BEARER
SMALL = {
    "API__MAX_BODY_BYTES": 200_000,
    "API__MAX_BATCH_BYTES": 200_000,
    "API__REQUEST_TIMEOUT": 5,
    "API__UPLOAD_TIMEOUT": 2,
    "WORKFLOWS__MAX_STEPS": 50,
    "WORKFLOWS__MAX_DEFINITION_BYTES": 60_000,
    "WORKFLOWS__MAX_OUTPUT_BYTES": 100_000,
    "WORKFLOWS__MAX_ITEMS": 100,
}
"""Limits that random input reaches."""
_WORKER = {"WORKER__HEARTBEAT_INTERVAL": "0.5", "WORKER__DEAD_AFTER": "10"}


@dataclass(kw_only=True)
class FuzzedServer:
    """The parts of the server."""

    redis: RedisProcess
    dsn: str
    doubles: Doubles
    api: Api
    workers: dict[str, ServiceProcess]

    def processes(self) -> dict[int, str]:
        """Return the names of all processes of Citadel by their ids."""
        api = psutil.Process(self.api.process.pid)
        family = {process.pid: "api" for process in (api, *api.children(recursive=True))}
        return family | {worker.pid: name for name, worker in self.workers.items()}

    def memory(self) -> dict[int, int]:
        """Return the resident bytes of each process."""
        return {pid: psutil.Process(pid).memory_info().rss for pid in self.processes()}


@contextmanager
def fuzzed_server(
    postgres: PostgresProcess,
    log: Path,
    *,
    limits: Mapping[str, Any] = MappingProxyType(SMALL),
    within: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Iterator[FuzzedServer]:
    """Start everything on stores of its own.

    Args:
        postgres: The server in which it gets a database.
        log: Log of the API.
        limits: Settings of all processes, names without the prefix.
        within: Returns the context in which the processes of a service are started.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(RedisProcess())
        dsn = stack.enter_context(postgres.database())
        ollama = stack.enter_context(OllamaProcess(slots=8))
        doubles = stack.enter_context(doubles_with(ollama))
        stores = {"BROKER_URL": redis.url, "POSTGRES_DSN": dsn}
        others = doubles.settings | dict(limits) | _WORKER
        starts: dict[str, Callable[[], ServiceProcess]] = {
            "orchestration": lambda: OrchestrationProcess(redis.url, dsn, others | {"WORKFLOWS__LEASE": "10"}),
            "embeddings": lambda: WorkerProcess(redis.url, ollama.url, **_WORKER),
            "monitoring": lambda: ServiceProcess(
                "citadel_monitoring", stores | others | backend_settings(redis.url, ollama.url)
            ),
            "maintenance": lambda: MaintenanceProcess(redis.url, dsn, others),
        }
        workers = {}
        for name, start in starts.items():
            with within(name):
                workers[name] = stack.enter_context(start())
        settings = {f"CITADEL_{name}": str(value) for name, value in (stores | others | _api()).items()}
        with within("api"):
            api = Api(settings, log)
        stack.callback(api.kill_all)
        yield FuzzedServer(redis=redis, dsn=dsn, doubles=doubles, api=api, workers=workers)


def _api() -> dict[str, Any]:
    scopes = ["read", "submit", "admin"]
    keys = [{"name": "fuzz", "hash": hashlib.sha256(KEY.encode()).hexdigest(), "scopes": scopes}]
    return {"API__WORKERS": 2, "API__KEYS": json.dumps(keys)}
