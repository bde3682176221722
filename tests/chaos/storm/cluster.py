"""The whole of Citadel as real processes, with stores behind a proxy, and doubles of the servers that it calls."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from redis import Redis

from tests.chaos.storm.members import Member
from tests.doubles.process import DoubleProcess, LlmProcess, OllamaProcess, QdrantProcess
from tests.support.child import free_port
from tests.support.doubles import ENDPOINT, Doubles
from tests.support.faulty_proxy import FaultyProxy
from tests.support.planted import QDRANT_KEY
from tests.support.postgres_server import PostgresProcess
from tests.support.redis_pair import MASTER, RedisPair
from tests.support.redis_server import RedisProcess
from tests.support.refusals import Refusals
from tests.support.worker import backend_settings

LEASE_S = 4.0
"""Seconds after which a worker that says nothing is dead, and a step's lease runs out."""
SETTINGS: dict[str, Any] = {
    "WORKER__HEARTBEAT_INTERVAL": "0.5",
    "WORKER__DEAD_AFTER": LEASE_S,
    "WORKER__CONCURRENCY": "8",
    "WORKER__STOP_GRACE": "5",
    "WORKER__RESULT_TTL": "600",
    # faults come one after the other for minutes: what an hour's outage would justify must not give a task up here
    "WORKER__MAX_DELIVERIES": "50",
    "WORKER__RETRY__MAX_RETRIES": "100",
    "WORKER__RETRY__BASE": "0.2",
    "WORKER__RETRY__CAP": "2",
    "ACCEPTED__FIRST_LOOK": "2",
    "ACCEPTED__LONGEST_WAIT": "8",
    "ACCEPTED__LEASE": LEASE_S,
    "WORKFLOWS__LEASE": LEASE_S,
    "WORKFLOWS__SWEEP_INTERVAL": "0.3",
    "EMBEDDINGS__REFRESH": "1",
    "EMBEDDINGS__BACKENDS__main__TIMEOUT": "5",
    "EMBEDDINGS__BACKENDS__main__LONGEST_PAUSE": "1",
    "CACHE__CLAIM_TTL": "2",
    f"{ENDPOINT}TIMEOUT": "5",
    "QDRANT__TIMEOUT": "3",
    "API__WORKERS": "2",
    "API__KEYLESS": "loopback",
    "API__REQUEST_TIMEOUT": "10",
    "LOG__FORMAT": "json",
}
MODULES = {
    "api": "citadel_orchestration.api",
    "embeddings": "citadel_embeddings",
    "orchestration": "citadel_orchestration",
    "monitoring": "citadel_monitoring",
    "maintenance": "citadel_maintenance",
    "beat": "citadel_maintenance.beat",
}


@dataclass(kw_only=True)
class Cluster:
    """The processes, and their addresses: those of the auditor lead past the proxy."""

    redis: RedisProcess | RedisPair
    postgres: PostgresProcess
    dsn: str
    doubles: Doubles
    journal: Path
    proxy: FaultyProxy
    refusals: Refusals
    logs: Path
    api_port: int = field(default_factory=free_port)
    members: list[Member] = field(default_factory=list)

    @property
    def api_url(self) -> str:
        """The API's base URL."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def broker_url(self) -> str:
        """The broker's URL, through the proxy; a pair has none before it, because its sentinel names its ports."""
        if isinstance(self.redis, RedisPair):
            return self.redis.url
        return self.redis.url.replace(f":{self.redis.port}/", f":{self.proxy.port('redis')}/")

    @property
    def plain_broker(self) -> tuple[str, dict[str, Any]]:
        """The broker's URL for a plain Celery client, and the options that belong to it."""
        if isinstance(self.redis, RedisPair):
            return self.redis.celery_url, {"master_name": MASTER}
        return self.broker_url, {}

    @property
    def database(self) -> str:
        """The name of the database."""
        return self.dsn.rpartition("/")[2]

    def of(self, kind: str) -> list[Member]:
        """Return the members of a kind."""
        return [member for member in self.members if member.kind == kind]

    def store(self) -> Redis:
        """Return a client of Redis, to be closed."""
        if isinstance(self.redis, RedisPair):
            return self.redis.client(socket_timeout=5, socket_connect_timeout=2)
        return Redis.from_url(self.redis.url, socket_timeout=5, socket_connect_timeout=2)

    def connect(self) -> "psycopg.Connection[Any]":
        """Return a connection to the database."""
        options = "-c statement_timeout=20000"
        return psycopg.connect(self.dsn, autocommit=True, connect_timeout=5, options=options)

    def start(self, counts: dict[str, int]) -> None:
        """Start so many members of each kind, and wait until they serve."""
        for kind, count in counts.items():
            for number in range(1, count + 1):
                self.members.append(self._member(kind, number))
        for member in self.members:
            member.start()
        for member in self.members:
            member.wait_until_ready()

    def end(self) -> None:
        """Kill all members."""
        for member in self.members:
            member.close()

    def _member(self, kind: str, number: int) -> Member:
        dsn = self.dsn.replace(f":{self.postgres.port}/", f":{self.proxy.port('postgres')}/")
        stores = backend_settings(self.broker_url, self.doubles.ollama.url) | {"POSTGRES_DSN": dsn}
        settings = SETTINGS | self.doubles.settings | stores | {"API__PORT": self.api_port}
        log = self.logs / f"{kind}-{number}.log"
        return Member(kind, number, MODULES[kind], settings, log, self._serves if kind == "api" else _is_ready)

    def _serves(self, _: str) -> bool:
        try:
            return httpx.get(f"{self.api_url}/readyz", timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def outside(self) -> dict[str, DoubleProcess]:
        """Return the doubles by the names of their servers."""
        return {"ollama": self.doubles.ollama, "llm": self.doubles.llm, "qdrant": self.doubles.qdrant}


def _is_ready(words: str) -> bool:
    return '"worker_ready"' in words or '"beat_ready"' in words


@contextmanager
def open_cluster(directory: Path, *, sentinel: bool = False) -> Iterator[Cluster]:
    """Start stores, doubles and proxy, without a member of Citadel yet; everything ends with the block.

    Args:
        directory: Where logs go.
        sentinel: Whether Redis is a pair behind a sentinel.
    """
    logs = directory / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="citadel-storm-")))
        server: RedisProcess | RedisPair = RedisPair() if sentinel else RedisProcess(durable=True)
        stack.enter_context(server)
        postgres = stack.enter_context(PostgresProcess())
        dsn = stack.enter_context(postgres.database())
        journal = scratch / "questions"
        doubles = Doubles(
            ollama=stack.enter_context(OllamaProcess(slots=4, request_ms=2)),
            llm=stack.enter_context(LlmProcess(request_ms=50, journal=str(journal))),
            qdrant=stack.enter_context(QdrantProcess(api_key=QDRANT_KEY, storage=str(scratch / "qdrant"))),
        )
        proxy = stack.enter_context(FaultyProxy(redis=server.port, postgres=postgres.port))
        cluster = Cluster(
            redis=server,
            postgres=postgres,
            dsn=dsn,
            doubles=doubles,
            journal=journal,
            proxy=proxy,
            refusals=Refusals(dsn),
            logs=logs,
        )
        stack.callback(cluster.end)
        yield cluster
