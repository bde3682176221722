"""The budget of bytes in PostgreSQL: new work is refused while it is used up, accepted work goes on."""

import os
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from tests.integration.api.servers import Api, RedisServer
from tests.integration.api.stack import BATCHES, NDJSON, WAIT
from tests.support.engine_db import EngineDatabase
from tests.support.planted import CREDENTIALS
from tests.support.polling import eventually
from tests.support.postgres_server import PostgresProcess

RUN = {"workflow_id": "w", "steps": [WAIT]}
MAX_BYTES = 2 * 2**20


@pytest.fixture(scope="module")
def dsn(postgres_server: PostgresProcess) -> Iterator[str]:
    with postgres_server.database() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def db(dsn: str) -> Iterator[EngineDatabase]:
    with EngineDatabase(dsn, owner=None) as db:
        yield db


@pytest.fixture(scope="module")
def http(
    api_redis: RedisServer, dsn: str, models: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of an API with a budget of 2 MiB."""
    settings = {
        "CITADEL_BROKER_URL": api_redis.url,
        "CITADEL_POSTGRES_DSN": dsn,
        "CITADEL_API__WORKERS": "1",
        "CITADEL_STORAGE__MAX_BYTES": str(MAX_BYTES),
    }
    api = Api(settings, tmp_path_factory.mktemp("api") / "log")
    with httpx.Client(base_url=api.url, timeout=60, headers=CREDENTIALS) as client:
        yield client
    api.kill_all()


@pytest.fixture
def filled(http: httpx.Client, db: EngineDatabase) -> UUID:
    """Return an unfinished run with 3 MB of payloads, which fills the budget."""
    run = UUID(http.post("/v1/workflows", json=RUN).json()["run_id"])
    db.rows("INSERT INTO payloads VALUES (%s, 'wait', 0, 'output', %s)", run, os.urandom(3_000_000))
    eventually(lambda: http.post("/v1/workflows", json=RUN).status_code == 503)
    return run


def test_a_full_budget_refuses_new_work_only_until_data_are_gone(
    http: httpx.Client, filled: UUID, db: EngineDatabase
) -> None:
    refused = [
        http.post("/v1/workflows", json=RUN),
        http.post(BATCHES, content=b'{"text": "t"}\n', headers=NDJSON),
        http.post("/v1/embeddings/tasks", json={"text": "t"}),
        http.post("/v1/collections/c/search", json={"embedding": [0.1, 0.2]}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(503, "storage_full")] * 4
    assert {answer.headers["retry-after"] for answer in refused} == {"60"}
    assert "CITADEL_STORAGE__MAX_BYTES" in refused[0].json()["detail"]

    assert http.get(f"/v1/runs/{filled}").status_code == 200
    assert http.post(f"/v1/runs/{filled}/signals/go", json={}).status_code == 202
    storage = http.get("/v1/health").json()["components"]["storage"]
    assert storage["status"] == "down"
    assert "of 2.0 MiB" in storage["detail"]
    assert 'citadel_submissions_refused_total{reason="storage"}' in http.get("/metrics").text

    db.rows("DELETE FROM runs WHERE run_id = %s", filled)
    # The files are as large as before: what counts is what is in use.
    assert db.rows("SELECT allocated_bytes()")[0][0] > MAX_BYTES
    eventually(lambda: http.post("/v1/workflows", json=RUN).status_code == 202)
    assert http.post("/v1/embeddings/tasks", json={"text": "t"}).status_code == 202
    assert http.get("/v1/health").json()["components"]["storage"]["status"] == "up"
