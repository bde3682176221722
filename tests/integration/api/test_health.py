"""Health and readiness: responses name what is down, and requests fail fast while PostgreSQL is down."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from citadel_common.history import key_of
from tests.integration.api.servers import Api, RedisServer
from tests.integration.api.stack import WAIT
from tests.support.fixtures import require_postgres
from tests.support.polling import eventually
from tests.support.postgres_server import PASSWORD, PostgresProcess
from tests.support.web import web

REQUIRED = {
    "broker": True,
    "results": True,
    "cache": False,
    "postgres": True,
    "storage": False,
    "embedding_workers": True,
    "orchestration_workers": True,
    "monitoring_workers": False,
    "maintenance_workers": False,
    "embedding_models": True,
    "qdrant": False,
    "llm/main": False,
}

CLIENT_TIMEOUT = 5.0
"""Seconds; without the fast failure, a request would wait ten for a connection of the pool."""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresProcess]:
    """A PostgreSQL server that tests may stop."""
    require_postgres()
    with PostgresProcess() as server:
        yield server


@pytest.fixture(scope="module")
def dsn(own_postgres: PostgresProcess) -> Iterator[str]:
    with own_postgres.database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def health_api(api_redis: RedisServer, dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    environment = {
        "CITADEL_BROKER_URL": api_redis.url,
        "CITADEL_POSTGRES_DSN": dsn,
        "CITADEL_API__WORKERS": "1",
        "CITADEL_LLM__ENDPOINTS__main__URL": "http://127.0.0.1:9",
        "CITADEL_LLM__ENDPOINTS__main__MODEL": "tiny-llm",
    }
    api = Api(environment, tmp_path_factory.mktemp("api") / "log")
    yield api
    api.kill_all()


@pytest.fixture
def client(health_api: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=health_api.url, timeout=60) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        yield client


def test_health_says_which_dependencies_are_required(client: httpx.Client) -> None:
    health = client.get("/v1/health").json()
    assert {name: part["required"] for name, part in health["components"].items()} == REQUIRED
    assert health["status"] == "down"  # nobody works
    assert "orchestration queue" in health["components"]["orchestration_workers"]["detail"]


def test_health_lists_what_is_configured_before_it_is_checked(client: httpx.Client, api_redis: RedisServer) -> None:
    api_redis.store.delete(key_of("health"))
    parts = client.get("/v1/health").json()["components"]
    assert {name: part["status"] for name, part in parts.items() if name in ("qdrant", "llm/main")} == {
        "qdrant": "unknown",
        "llm/main": "unknown",
    }
    assert "not checked yet" in parts["qdrant"]["detail"]


def record_check(redis: RedisServer, age: float, services: dict[str, Any]) -> None:
    """Record a health check made `age` seconds ago."""
    entry = {"at": "then", "success": True, "health_status": {"services": services}}
    redis.store.zadd(key_of("health"), {json.dumps(entry): time.time() - age})


def test_health_shows_what_the_newest_monitoring_check_found(client: httpx.Client, api_redis: RedisServer) -> None:
    service = {"status": "up", "latency_ms": 3.0, "required": True, "detail": "Qdrant answers"}
    down = service | {"status": "down", "detail": "the LLM endpoint 'main' does not answer"}
    try:
        record_check(api_redis, 300, {"qdrant": down})
        record_check(api_redis, 42, {"qdrant": service, "llm/main": down, "broker": down})
        parts = client.get("/v1/health").json()["components"]
        assert (parts["qdrant"]["status"], parts["qdrant"]["required"]) == ("up", False)
        assert "Qdrant answers (checked 4" in parts["qdrant"]["detail"]
        assert (parts["llm/main"]["status"], parts["broker"]["status"]) == ("down", "up")
    finally:
        api_redis.store.delete(key_of("health"))


def test_health_ignores_an_old_monitoring_check(client: httpx.Client, api_redis: RedisServer) -> None:
    record_check(api_redis, 2000, {"qdrant": {"status": "up", "detail": "Qdrant answers"}})
    try:
        assert client.get("/v1/health").json()["components"]["qdrant"]["status"] == "unknown"
    finally:
        api_redis.store.delete(key_of("health"))


def test_concurrent_probes_share_one_answer(client: httpx.Client, dsn: str, own_postgres: PostgresProcess) -> None:
    """PostgreSQL sees one connection, however many clients ask."""
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: client.get("/readyz").status_code, range(80))) == {200}
    assert connections(dsn, "citadel-api-watch") == 1


def connections(dsn: str, name: str) -> int:
    import psycopg

    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [name])
        row = found.fetchone()
    assert row is not None
    return int(row[0])


def submit(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/workflows", json={"steps": [WAIT]})


def impatient_client(client: httpx.Client) -> httpx.Client:
    return httpx.Client(base_url=client.base_url, timeout=CLIENT_TIMEOUT)


def test_without_postgres_requests_fail_at_once(client: httpx.Client, own_postgres: PostgresProcess) -> None:
    assert submit(client).status_code == 202
    own_postgres.stop()
    try:
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert "postgres: postgresql://127.0.0.1" in client.get("/readyz").json()["detail"]
        with impatient_client(client) as hasty:
            answers = [submit(hasty) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["code"] for answer in answers} == {"store_unavailable"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
        assert client.get("/livez").status_code == 200
        assert client.get("/v1/health").json()["components"]["postgres"]["status"] == "down"
    finally:
        own_postgres.start()
    eventually(lambda: submit(client).status_code == 202)
    eventually(lambda: client.get("/readyz").status_code == 200)


def test_a_hung_postgres_holds_no_thread_for_each_request(
    client: httpx.Client, health_api: Api, own_postgres: PostgresProcess
) -> None:
    assert submit(client).status_code == 202
    with own_postgres.frozen():
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert "within 2 s" in client.get("/readyz").json()["detail"]
        with impatient_client(client) as hasty, ThreadPoolExecutor(16) as threads:
            assert set(threads.map(lambda _: submit(hasty).status_code, range(64))) == {503}
            assert set(threads.map(lambda _: hasty.get("/readyz").status_code, range(64))) == {503}
            before = threads_of(health_api)
            assert set(threads.map(lambda _: submit(hasty).status_code, range(64))) == {503}
            assert threads_of(health_api) <= before + 8  # pools may fill, whatever the number of requests
        assert client.get("/livez").status_code == 200
    eventually(lambda: submit(client).status_code == 202)


def threads_of(api: Api) -> int:
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in api.family)


def test_refused_credentials_are_reported_and_not_shown(api_redis: RedisServer, dsn: str, tmp_path: Path) -> None:
    environment = {"CITADEL_BROKER_URL": api_redis.url, "CITADEL_POSTGRES_DSN": dsn, "CITADEL_API__WORKERS": "1"}
    api = Api(environment, tmp_path / "log")
    try:
        with password_changed(dsn):
            eventually(lambda: web.get(f"{api.url}/readyz", timeout=60).status_code == 503)
            answer = web.get(f"{api.url}/readyz", timeout=60)
            assert "refuses the credentials" in answer.json()["detail"]
            assert PASSWORD not in answer.text + web.get(f"{api.url}/v1/health", timeout=60).text
    finally:
        api.kill_all()


@contextlib.contextmanager
def password_changed(dsn: str) -> Iterator[None]:
    """Give the role another password for a while, and end its connections."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER ROLE citadel PASSWORD 'another'")
        try:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND usename = current_user AND datname = current_database()"
            )
            yield
        finally:
            connection.execute(f"ALTER ROLE citadel PASSWORD '{PASSWORD}'".encode())


def test_requests_waiting_for_a_connection_fail_when_an_outage_begins(
    client: httpx.Client, own_postgres: PostgresProcess
) -> None:
    """The server stops while requests wait for a connection of the pool."""
    gone = threading.Event()

    def ask(_: int) -> int:
        gone.wait(60)
        return submit(client).status_code

    with ThreadPoolExecutor(16) as threads:
        asked = [threads.submit(ask, n) for n in range(32)]
        own_postgres.stop()
        gone.set()
        try:
            assert {future.result() for future in asked} == {503}
        finally:
            own_postgres.start()
    eventually(lambda: submit(client).status_code == 202)
